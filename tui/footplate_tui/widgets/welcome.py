"""What an empty session says: who answers here, and what one may ask."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static

from footplate_tui.keymap import Keymap, keymap_of

EXAMPLES = (
    "How do I switch runtime?",
    "What is a preset?",
    "What do the keys do?",
    "What should I do when vLLM runs out of memory?",
)


HINTS = {
    "model.switch": "another model or runtime, and how it loads",
    "session.history": "earlier sessions: find, open, fork",
    "chat.attach": "attach an image or a text",
    "session.settings": "instructions and parameters of this session",
    "view.gauges": "what the GPU does, and whose its memory is",
    "program.help": "every key",
}
"""What an empty session teaches, by the command's id."""
HINT_KEY_CELLS = 5


class Welcome(Vertical):
    """Shown until the first question; for the guide with questions to choose from."""

    @dataclass
    class Chosen(Message):
        """The user chose an example question."""

        question: str

    @dataclass
    class Typed(Message):
        """The user typed on while the examples had the focus."""

        character: str

    def __init__(self) -> None:
        super().__init__()
        self._words = Static(markup=False)
        self._hints = Static(markup=False, classes="hints")

    def compose(self) -> ComposeResult:
        yield self._words
        yield OptionList(*EXAMPLES, markup=False, compact=True)
        yield Static(
            Content.assemble(
                ("↑", "bold $footer-key-foreground"),
                (" and ", "$muted"),
                ("⏎", "bold $footer-key-foreground"),
                (" choose one, or just type", "$muted"),
            ),
            markup=False,
            classes="how",
        )
        yield self._hints

    def on_mount(self) -> None:
        self._hints.update(_hints(keymap_of(self.app)))
        self.show("", is_demonstration=False)

    def show(self, speaker: str, *, is_demonstration: bool) -> None:
        """Say who will answer; the guide is called plainly what it is."""
        self.set_class(is_demonstration, "-guide")
        if is_demonstration:
            self._words.update(
                Content.assemble(
                    "This is Footplate's built-in ",
                    ("guide", "bold $heading"),
                    ", a tiny demonstration model that knows only its guide. Try:",
                )
            )
        elif speaker:
            self._words.update(Content.assemble("A new session with ", (speaker, "bold"), ". Ask anything."))
        else:
            self._words.update("A new session. No model is loaded yet: the first question loads one.")

    def focus_examples(self) -> bool:
        """Give the focus to the last example; False when there are none to choose from."""
        options = self.query_one(OptionList)
        if not self.has_class("-guide"):
            return False
        options.highlighted = options.option_count - 1
        options.focus()
        return True

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.post_message(self.Chosen(EXAMPLES[event.option_index]))

    def on_key(self, event: events.Key) -> None:
        if event.is_printable and event.character and event.character != " ":
            event.stop()
            self.post_message(self.Typed(event.character))


def _hints(keymap: Keymap) -> Content:
    lines = [
        Content.assemble(
            (f"{keymap.command(identity).shown:<{HINT_KEY_CELLS}}", "bold $footer-key-foreground"),
            (words, "$muted"),
        )
        for identity, words in HINTS.items()
    ]
    return Content("\n").join(lines)
