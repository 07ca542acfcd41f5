"""Every command once: its id, its keys, its words, and the message that carries it.

Bindings, footer, palette and help are all made from this table; what a command does is up to whoever
handles its message.
"""

from __future__ import annotations

from textual.binding import Binding, BindingType
from textual.message import Message

from footplate_tui import batch_commands, benchmark_commands
from footplate_tui.command import BackWanted
from footplate_tui.command import Command as Command  # noqa: PLC0414 -- for whoever asks this module
from footplate_tui.command import CopyWanted as CopyWanted  # noqa: PLC0414 -- the same
from footplate_tui.command import Place as Place  # noqa: PLC0414 -- the same


class SendWanted(Message):
    """Send what stands in the prompt."""


class NewlineWanted(Message):
    """Begin a new line in the prompt."""


class EarlierPromptWanted(Message):
    """Bring back an earlier prompt."""


class LaterPromptWanted(Message):
    """Go on to a later prompt."""


class StopWanted(Message):
    """Take back what waits, else stop the answer that streams."""


class NewSessionWanted(Message):
    """Begin an empty session."""


class PageUpWanted(Message):
    """Scroll up by a page."""


class PageDownWanted(Message):
    """Scroll down by a page."""


class FollowWanted(Message):
    """Go to the end and stay there."""


class ReasoningWanted(Message):
    """Open or close the reasoning of the last answer."""


class SwitcherWanted(Message):
    """Show what there is to switch to, and how a switch goes."""


class ChoiceWanted(Message):
    """Switch to the highlighted variant."""


class PlanWanted(Message):
    """Say what a switch to the highlighted variant would do."""


class StopEngineWanted(Message):
    """Stop the engine of the highlighted variant."""


class WhyWanted(Message):
    """Say why the highlighted variant did not start."""


class CancelSwitchWanted(Message):
    """End the switch that goes on; what was active comes back."""


class FilterWanted(Message):
    """Type what the variants' names must contain."""


class CloseWanted(Message):
    """Close the screen; a switch goes on."""


class RemedyWanted(Message):
    """Try the highlighted way out."""


class CopyCommandWanted(Message):
    """Copy the command of the highlighted way out."""


class HistoryWanted(Message):
    """Show the sessions of the history; again: go back."""


class OpenSessionWanted(Message):
    """Open the highlighted session in the chat, at the place that was found."""


class SearchWanted(Message):
    """Type what is sought."""


class RenameWanted(Message):
    """Give the highlighted session another title."""


class ForkWanted(Message):
    """Go on from the highlighted session another way."""


class DeleteWanted(Message):
    """Delete the highlighted session."""


class UndoWanted(Message):
    """Bring back the session that was deleted last."""


class ExportWanted(Message):
    """Write the highlighted session to a file."""


class ImportWanted(Message):
    """Take in a session from a file."""


class GaugesWanted(Message):
    """Show the GPUs, the CPU and the RAM; again: go back."""


class AsideWanted(Message):
    """Show or hide the panel beside the chat."""


class LogsWanted(Message):
    """Show the logs; again: go back."""


class NextLogWanted(Message):
    """Show the next log."""


class PreviousLogWanted(Message):
    """Show the log before."""


class FoundWanted(Message):
    """Go to the next place below that is sought."""


class FoundAboveWanted(Message):
    """Go to the next place above that is sought."""


class WorstLinesWanted(Message):
    """Show errors and warnings only, or all again."""


class CauseWanted(Message):
    """Go to the lines that say why the last switch failed."""


class WrapWanted(Message):
    """Wrap long lines, or let them go on beyond the edge."""


class MarkWanted(Message):
    """Begin to select lines, or end it."""


class ExchangesWanted(Message):
    """Show the exchanges and the queue; again: go back."""


class ShowExchangeWanted(Message):
    """Show all of the highlighted exchange."""


class CancelExchangeWanted(Message):
    """End the highlighted exchange while it waits or runs."""


class ReplayWanted(Message):
    """Ask the highlighted exchange's request again."""


class OutcomeWanted(Message):
    """Show only exchanges with the next outcome."""


class RuntimeWanted(Message):
    """Show only exchanges of the next runtime."""


class LightOrDarkWanted(Message):
    """Change between the light and the dark theme."""


class MouseWanted(Message):
    """Give the mouse to the terminal, or take it back."""


class PaletteWanted(Message):
    """Open the command palette."""


class HelpWanted(Message):
    """Show every key."""


class QuitWanted(Message):
    """Leave the terminal program; the daemon and its engines go on."""


class TurnWanted(Message):
    """Show what can be done with a turn; again: go back."""


class EditorWanted(Message):
    """Write the prompt in the user's own editor."""


class AttachWanted(Message):
    """Choose a file to go with the question."""


class SessionSettingsWanted(Message):
    """Show what holds for the whole session; again: keep it."""


class TakeWanted(Message):
    """Do what is highlighted."""


class RetryWanted(Message):
    """Ask the turn again."""


class RetryElsewhereWanted(Message):
    """Ask the turn again, of another model or runtime."""


class EditWanted(Message):
    """Change the question and ask that instead."""


class ContinueWanted(Message):
    """Let the model go on with its answer."""


class PreferWanted(Message):
    """Go on from another answer to the question."""


class CopyAnswerWanted(Message):
    """Copy the answer of the turn."""


class CopyCodeWanted(Message):
    """Copy a block of code out of the answer."""


class OpenAnswerWanted(Message):
    """Open the answer in the user's own editor."""


class ForkHereWanted(Message):
    """Make a session of the turns up to this one."""


class DetailsWanted(Message):
    """Show or hide what the label leaves out."""


class EarlierTurnWanted(Message):
    """Choose the turn before."""


class LaterTurnWanted(Message):
    """Choose the turn after."""


COMMANDS: tuple[Command, ...] = (
    Command(
        "prompt.send", "enter", "⏎", "send", "Send",
        "Ask what stands in the prompt.",
        SendWanted, Place.PROMPT, priority=True,
    ),
    Command(
        "prompt.newline", "ctrl+j,alt+enter,shift+enter", "^j", "newline", "New line",
        "Begin a new line in the prompt (also Alt+Enter).",
        NewlineWanted, Place.PROMPT, priority=True,
    ),
    Command(
        "prompt.earlier", "up", "↑", "earlier", "Earlier prompt",
        "In an empty prompt: bring back the last one.",
        EarlierPromptWanted, Place.PROMPT,
    ),
    Command(
        "prompt.later", "down", "↓", "later", "Later prompt",
        "Go on to a later prompt.",
        LaterPromptWanted, Place.PROMPT,
    ),
    Command(
        "chat.stop", "escape", "esc", "stop", "Stop",
        "Stop the answer and keep what came; take a waiting question back into the prompt.",
        StopWanted, Place.CHAT,
    ),
    Command(
        "model.switch", "ctrl+r", "^r", "models", "Models",
        "Choose what answers: models, plans, a running switch, and why one failed.",
        SwitcherWanted, Place.CHAT, priority=True, leads_elsewhere=True,
    ),
    Command(
        "chat.copy", "ctrl+y", "^y", "copy", "Copy the last answer",
        "Copy the last answer to the clipboard, over SSH and inside tmux too.",
        CopyWanted, Place.CHAT, priority=True,
    ),
    Command(
        "chat.reasoning", "f2", "F2", "reasoning", "Show or hide the reasoning",
        "Open or close the reasoning of the last answer.",
        ReasoningWanted, Place.CHAT, priority=True,
    ),
    Command(
        "chat.turn", "f7", "F7", "turn", "Turn…",
        "Retry, compare, edit, continue, copy or fork a turn; ← and → choose which.",
        TurnWanted, Place.CHAT, priority=True,
    ),
    Command(
        "chat.attach", "f9", "F9", "attach", "Attach a file…",
        "Attach an image or a text; also by /attach PATH, or by dropping it on the terminal.",
        AttachWanted, Place.CHAT, priority=True,
    ),
    Command(
        "chat.editor", "ctrl+g", "^g", "editor", "Write in the editor",
        "Write the prompt in $EDITOR, and come back with it.",
        EditorWanted, Place.CHAT, priority=True,
    ),
    Command(
        "session.settings", "f8", "F8", "session", "Session settings…",
        "Set the session's instructions and parameters; also by /system TEXT.",
        SessionSettingsWanted, Place.CHAT, priority=True,
    ),
    Command(
        "session.new", "ctrl+n", "^n", "new", "New session",
        "Begin an empty session; the one before stays in the history.",
        NewSessionWanted, Place.CHAT, priority=True,
    ),
    Command(
        "scroll.up", "pageup", "PgUp", "up", "Scroll up",
        "Read earlier turns; the answer goes on below.",
        PageUpWanted, Place.CHAT, priority=True,
    ),
    Command(
        "scroll.down", "pagedown", "PgDn", "down", "Scroll down",
        "Scroll down by a page.",
        PageDownWanted, Place.CHAT, priority=True,
    ),
    Command(
        "scroll.follow", "ctrl+end", "End", "follow", "Follow the answer",
        "Go to the end and stay there (End, when the cursor has nowhere else to go).",
        FollowWanted, Place.CHAT, priority=True,
    ),
    Command(
        "switcher.choose", "enter", "⏎", "switch", "Switch",
        "Make the highlighted variant active.",
        ChoiceWanted, Place.SWITCHER,
    ),
    Command(
        "switcher.plan", "p", "p", "plan", "Plan",
        "Say what the switch would stop, need and run; nothing is done.",
        PlanWanted, Place.SWITCHER,
    ),
    Command(
        "switcher.stop", "s", "s", "stop", "Stop the engine",
        "Stop the highlighted engine and free its memory; press it twice.",
        StopEngineWanted, Place.SWITCHER,
    ),
    Command(
        "switcher.why", "w", "w", "why", "Why",
        "Say why the highlighted variant failed, and what helps.",
        WhyWanted, Place.SWITCHER,
    ),
    Command(
        "switcher.filter", "slash", "/", "filter", "Filter",
        "Filter by name (any letter that is no key here begins it, too).",
        FilterWanted, Place.SWITCHER,
    ),
    Command(
        "switcher.cancel", "c", "c", "cancel", "Cancel the switch",
        "Cancel the switch that goes on; what was active comes back.",
        CancelSwitchWanted, Place.SWITCHER,
    ),
    Command(
        "switcher.back", "escape", "esc", "back", "Back",
        "Clear the filter, else cancel the switch that goes on, else close.",
        BackWanted, Place.SWITCHER,
    ),
    Command(
        "switcher.close", "ctrl+r", "^r", "close", "Close",
        "Close; a switch goes on, and the status line shows it.",
        CloseWanted, Place.SWITCHER,
    ),
    Command(
        "failure.take", "enter", "1…9", "try", "Try a way out",
        "Try a way out by its number (or Enter); where it is for you to do, copy its command.",
        RemedyWanted, Place.FAILURE,
    ),
    Command(
        "failure.copy", "y", "y", "copy", "Copy the command",
        "Copy the command of the highlighted way out.",
        CopyCommandWanted, Place.FAILURE,
    ),
    Command(
        "failure.close", "escape,q", "esc", "close", "Close",
        "Close; `w` on the model shows it again.",
        BackWanted, Place.FAILURE,
    ),
    Command(
        "session.history", "ctrl+o", "^o", "history", "History",
        "Find, open, rename, fork, delete and export earlier sessions.",
        HistoryWanted, Place.CHAT, priority=True, leads_elsewhere=True,
    ),
    Command(
        "history.open", "enter", "⏎", "open", "Open",
        "Go on with the highlighted session; what was found opens at its turn.",
        OpenSessionWanted, Place.HISTORY,
    ),
    Command(
        "history.search", "slash", "/", "search", "Search",
        "Search titles, questions, answers and reasoning (any letter that is no key here begins it, too).",
        SearchWanted, Place.HISTORY,
    ),
    Command(
        "history.rename", "r", "r", "rename", "Rename",
        "Give the session another title, in its place.",
        RenameWanted, Place.HISTORY,
    ),
    Command(
        "history.fork", "f", "f", "fork", "Fork",
        "Go on another way in a new session: from the last turn, or from the one that was found.",
        ForkWanted, Place.HISTORY,
    ),
    Command(
        "history.delete", "d", "d", "delete", "Delete",
        "Delete the session; for ten minutes `u` brings it back.",
        DeleteWanted, Place.HISTORY,
    ),
    Command(
        "history.undo", "u", "u", "bring back", "Bring back",
        "Bring back the session that was deleted last.",
        UndoWanted, Place.HISTORY,
    ),
    Command(
        "history.export", "e", "e", "export", "Export",
        "Write the session to a file on this machine: `.md` to read, `.json` to import.",
        ExportWanted, Place.HISTORY,
    ),
    Command(
        "history.import", "i", "i", "import", "Import",
        "Take in a session from a file that was exported as `.json`.",
        ImportWanted, Place.HISTORY,
    ),
    Command(
        "history.back", "escape", "esc", "back", "Back",
        "Leave the question or the search, else go back to the chat.",
        BackWanted, Place.HISTORY,
    ),
    Command(
        "history.close", "ctrl+o", "^o", "close", "Close",
        "Go back to the chat.",
        CloseWanted, Place.HISTORY,
    ),
    Command(
        "view.gauges", "f4", "F4", "gauges", "Gauges",
        "Show the GPUs: use, memory and whose it is, heat, power; with CPU and RAM.",
        GaugesWanted, Place.CHAT, priority=True, leads_elsewhere=True,
    ),
    Command(
        "view.aside", "ctrl+l", "^l", "panel", "Panel beside the chat",
        "Show or hide what runs, the gauges and speeds beside a wide chat; remembered.",
        AsideWanted, Place.CHAT, priority=True,
    ),
    Command(
        "gauges.close", "escape,q,f4", "esc", "close", "Close",
        "Close the gauges (also F4).",
        BackWanted, Place.GAUGES,
    ),
    Command(
        "view.logs", "f5", "F5", "logs", "Logs",
        "Show the logs of the daemon, of requests and of every engine (again: go back).",
        LogsWanted, Place.PROGRAM, priority=True, leads_elsewhere=True,
    ),
    Command(
        "logs.next", "tab", "⇥", "next log", "Next log",
        "Show the next log (or press its number; Shift+Tab: the one before).",
        NextLogWanted, Place.LOGS,
    ),
    Command(
        "logs.previous", "shift+tab", "⇧⇥", "log before", "Log before",
        "Show the log before.",
        PreviousLogWanted, Place.LOGS,
    ),
    Command(
        "logs.filter", "slash", "/", "filter", "Filter",
        "Show only the lines that contain some words.",
        FilterWanted, Place.LOGS,
    ),
    Command(
        "logs.worst", "e", "e", "errors", "Errors and warnings",
        "Show errors and warnings only, or all again.",
        WorstLinesWanted, Place.LOGS,
    ),
    Command(
        "logs.search", "s", "s", "search", "Search",
        "Go to a text; lines far back are searched, too.",
        SearchWanted, Place.LOGS,
    ),
    Command(
        "logs.found", "n", "n", "below", "Next below",
        "Go to the next place with the text below; without a text, to the next error or warning.",
        FoundWanted, Place.LOGS,
    ),
    Command(
        "logs.found_above", "N", "N", "above", "Next above",
        "Go to the next place above.",
        FoundAboveWanted, Place.LOGS,
    ),
    Command(
        "logs.cause", "c", "c", "cause", "Cause of the last failure",
        "Go to the lines that say why the last switch failed, in the log of its engine.",
        CauseWanted, Place.LOGS,
    ),
    Command(
        "logs.follow", "f", "f", "follow", "Follow",
        "Go to the end and stay there (or End).",
        FollowWanted, Place.LOGS,
    ),
    Command(
        "logs.wrap", "w", "w", "wrap", "Wrap",
        "Wrap long lines; unwrapped, ← and → show what is beyond the edge.",
        WrapWanted, Place.LOGS,
    ),
    Command(
        "logs.mark", "space", "␣", "select", "Select lines",
        "Select lines from here to where the cursor goes.",
        MarkWanted, Place.LOGS,
    ),
    Command(
        "logs.copy", "y", "y", "copy", "Copy lines",
        "Copy the line, or the selected ones.",
        CopyWanted, Place.LOGS,
    ),
    Command(
        "logs.back", "escape,q", "esc", "back", "Back",
        "Leave what is typed, the selection, the filter, the search; else go back.",
        BackWanted, Place.LOGS,
    ),
    Command(
        "view.exchanges", "f6", "F6", "exchanges", "Exchanges and queue",
        "Show what runs, what waits and why, and the last requests (again: go back).",
        ExchangesWanted, Place.PROGRAM, priority=True, leads_elsewhere=True,
    ),
    Command(
        "exchanges.show", "enter", "⏎", "show", "Show it whole",
        "Show where its time went, what was asked and what was answered.",
        ShowExchangeWanted, Place.EXCHANGES,
    ),
    Command(
        "exchanges.cancel", "c", "c", "cancel", "Cancel",
        "End the exchange while it waits or runs; press it twice.",
        CancelExchangeWanted, Place.EXCHANGES,
    ),
    Command(
        "exchanges.replay", "r", "r", "ask again", "Ask again",
        "Ask the same of another variant, and see both answers.",
        ReplayWanted, Place.EXCHANGES,
    ),
    Command(
        "exchanges.outcome", "o", "o", "outcome", "By outcome",
        "List only those under way, done, failed, cancelled, cut; then all again.",
        OutcomeWanted, Place.EXCHANGES,
    ),
    Command(
        "exchanges.runtime", "u", "u", "runtime", "By runtime",
        "List only those of one runtime, then of the next; then all again.",
        RuntimeWanted, Place.EXCHANGES,
    ),
    Command(
        "exchanges.filter", "slash", "/", "filter", "Filter",
        "List only those that say these words: model, client, path, error.",
        FilterWanted, Place.EXCHANGES,
    ),
    Command(
        "exchanges.back", "escape,q", "esc", "back", "Back",
        "Take back a question or the filters, else go back.",
        BackWanted, Place.EXCHANGES,
    ),
    Command(
        "exchange.replay", "r", "r", "ask again", "Ask again",
        "Ask the same of another variant; both answers stand side by side.",
        ReplayWanted, Place.EXCHANGE,
    ),
    Command(
        "exchange.copy", "y", "y", "copy the answer", "Copy the answer",
        "Copy what was answered.",
        CopyWanted, Place.EXCHANGE,
    ),
    Command(
        "exchange.back", "escape,q", "esc", "back", "Back",
        "Go back to the list; a replay that is not answered yet is cancelled.",
        BackWanted, Place.EXCHANGE,
    ),
    Command(
        "turn.take", "enter", "⏎", "do it", "Do it",
        "Do what is highlighted.",
        TakeWanted, Place.TURN,
    ),
    Command(
        "turn.retry", "r", "r", "retry", "Retry",
        "Ask again; the new answer stands beside the old one and is gone on from.",
        RetryWanted, Place.TURN,
    ),
    Command(
        "turn.elsewhere", "o", "o", "retry on…", "Retry on another model or runtime…",
        "Ask another model or runtime, and see both answers beside each other.",
        RetryElsewhereWanted, Place.TURN,
    ),
    Command(
        "turn.edit", "e", "e", "edit", "Edit and ask again",
        "Bring the question back into the prompt; what is sent stands in its place.",
        EditWanted, Place.TURN,
    ),
    Command(
        "turn.continue", "c", "c", "continue", "Continue the answer",
        "Let an answer that was stopped or cut off go on.",
        ContinueWanted, Place.TURN,
    ),
    Command(
        "turn.prefer", "p", "p", "prefer", "Go on from the other answer",
        "Of several answers, choose which one the session goes on from.",
        PreferWanted, Place.TURN,
    ),
    Command(
        "turn.copy", "y", "y", "copy", "Copy the answer",
        "Copy the answer, whole.",
        CopyAnswerWanted, Place.TURN,
    ),
    Command(
        "turn.code", "k", "1…9", "code", "Copy a block of code",
        "Copy a block of code by its number (k: the last one).",
        CopyCodeWanted, Place.TURN,
    ),
    Command(
        "turn.editor", "v", "v", "open", "Open the answer in the editor",
        "Open the answer in $EDITOR.",
        OpenAnswerWanted, Place.TURN,
    ),
    Command(
        "turn.fork", "f", "f", "fork", "Fork from here",
        "Make a new session of the turns up to this one, and open it.",
        ForkHereWanted, Place.TURN,
    ),
    Command(
        "turn.details", "i", "i", "details", "Details",
        "Show the request id, preset, profile, parameters and time under the answer.",
        DetailsWanted, Place.TURN,
    ),
    Command(
        "turn.earlier", "left", "←", "before", "Turn before",
        "Choose the turn before.",
        EarlierTurnWanted, Place.TURN,
    ),
    Command(
        "turn.later", "right", "→", "after", "Turn after",
        "Choose the turn after.",
        LaterTurnWanted, Place.TURN,
    ),
    Command(
        "turn.close", "escape,q,f7", "esc", "close", "Close",
        "Close; nothing is done.",
        BackWanted, Place.TURN,
    ),
    Command(
        "session.keep", "f8", "F8", "keep", "Keep",
        "Keep what is set (Enter in a field, too).",
        SessionSettingsWanted, Place.SESSION,
    ),
    Command(
        "session.leave", "escape", "esc", "leave", "Leave",
        "Leave; nothing is changed.",
        BackWanted, Place.SESSION,
    ),
    Command(
        "attach.take", "enter", "⏎", "choose", "Choose",
        "Choose the file; a folder is opened.",
        TakeWanted, Place.ATTACH,
    ),
    Command(
        "attach.complete", "tab", "⇥", "complete", "Complete",
        "Complete the path; ↑ and ↓ choose among what fits.",
        AttachWanted, Place.ATTACH, priority=True,
    ),
    Command(
        "attach.leave", "escape", "esc", "leave", "Leave",
        "Leave; nothing is attached.",
        BackWanted, Place.ATTACH,
    ),
    benchmark_commands.VIEW_BENCHMARKS,
    *benchmark_commands.COMMANDS,
    batch_commands.VIEW_BATCHES,
    *batch_commands.COMMANDS,
    Command(
        "view.theme", "ctrl+t", "^t", "light/dark", "Light or dark",
        "Change between the light and the dark theme; remembered.",
        LightOrDarkWanted, Place.PROGRAM, priority=True,
    ),
    Command(
        "view.mouse", "f12", "F12", "mouse", "Mouse on or off",
        "Give the mouse to the terminal, to select with, or take it back; remembered.",
        MouseWanted, Place.PROGRAM, priority=True,
    ),
    Command(
        "program.palette", "ctrl+p", "^p", "commands", "Commands",
        "Find a command by its name.",
        PaletteWanted, Place.PROGRAM, priority=True,
    ),
    Command(
        "program.help", "f1", "F1", "help", "Help",
        "Show every key.",
        HelpWanted, Place.PROGRAM, priority=True,
    ),
    Command(
        "program.quit", "ctrl+q", "^q", "quit", "Quit",
        "Leave this terminal; daemon, engines and running answers go on.",
        QuitWanted, Place.PROGRAM, priority=True,
    ),
)  # fmt: skip

BY_ID = {command.id: command for command in COMMANDS}


PAGES = frozenset(
    {
        *(Place.HISTORY, Place.GAUGES, Place.LOGS, Place.EXCHANGES, Place.EXCHANGE),
        *(Place.BENCHMARKS, Place.MATRIX, Place.BENCHMARK, Place.RUNS, Place.ANSWERS),
        *(Place.BATCHES, Place.BATCH, Place.BATCHES_COMPARED),
    }
)
"""Full screens beside the chat: from each of them one goes to any other."""


def bindings(place: Place) -> list[BindingType]:
    """Give the bindings of a place; each calls `action_command` with the command's id."""
    own = [command for command in COMMANDS if command.place is place]
    taken = {key for command in own for key in command.keys.split(",")}
    # What belongs to the program is heard everywhere anyway; a page's own key closes it.
    others = [
        command
        for command in COMMANDS
        if place in PAGES
        and command.leads_elsewhere
        and command.place is not Place.PROGRAM
        and not taken & set(command.keys.split(","))
    ]
    return [
        Binding(
            command.keys,
            f"command({command.id!r})",
            command.title,
            key_display=command.shown,
            priority=command.priority,
            id=command.id,
            tooltip=command.explanation,
        )
        for command in (*own, *others)
    ]


def elsewhere(but: str = "") -> tuple[str, ...]:
    """Give the ids of what leads to another screen than the one that this command shows."""
    return tuple(command.id for command in COMMANDS if command.leads_elsewhere and command.id != but)
