"""What can be done with one turn: a list over the chat, each line one key away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from footplate_daemon import errors
from footplate_tui.code_blocks import code_blocks
from footplate_tui.commands import BY_ID, Place, bindings
from footplate_tui.format import count, speaker, truncate
from footplate_tui.harmless import one_line
from footplate_tui.theme import runtime_colour
from footplate_tui.widgets.status_line import KeyLine

if TYPE_CHECKING:
    from footplate_daemon.wire import ModelInfo
    from footplate_tui.footplate_app import FootplateApp
    from footplate_tui.keymap import Keymap
    from footplate_tui.places import Place as Spot
    from footplate_tui.places import Version

CONTINUED = frozenset({"length", "stopped"})
"""How an answer ended that can be gone on with."""
CODE_BLOCKS = 9
"""So many have a number to press."""
WIDEST_LINE = 56


@dataclass(frozen=True)
class Chosen:
    """What is to be done, and with which answer."""

    command: str
    index: int
    version: Version
    model: str | None = None
    """The variant to ask; None asks whatever is active."""
    number: int = 0
    """Which block of code, counted from 0."""


class TurnScreen(ModalScreen[Chosen | None]):
    """Shows what can be done with a turn; gives what was chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings(Place.TURN),
        *((str(number), f"code({number})") for number in range(1, CODE_BLOCKS + 1)),
    ]

    def __init__(self, spots: Sequence[Spot], mark: Callable[[int | None], None]) -> None:
        """`mark` is told which turn is meant, by its index."""
        super().__init__()
        self._spots = spots
        self._index = len(spots) - 1
        self._mark = mark
        self._choices = OptionList(markup=False, compact=True)
        self._variants: list[str] | None = None
        """What to retry on, while that is asked; None while it is not."""

    @property
    def footplate(self) -> FootplateApp:
        """The app, by its own type."""
        return cast("FootplateApp", self.app)

    @property
    def _spot(self) -> Spot:
        return self._spots[self._index]

    def compose(self) -> ComposeResult:
        with Vertical():
            yield self._choices
            yield Static(markup=False, classes="news")
            yield KeyLine("turn.take", "turn.earlier", "turn.later", "turn.close")

    def on_mount(self) -> None:
        self._show()
        self._choices.focus()

    def _show(self) -> None:
        """Show the turn that is meant and what it allows."""
        self._variants = None
        self._mark(self._index)
        title = truncate(one_line(self._spot.version.prompt), WIDEST_LINE)
        self.query_one(Vertical).border_title = Content(
            f"turn {self._index + 1} of {len(self._spots)} · {title}"
        )
        self._choices.clear_options()
        offered = offers(self._spot, self.footplate.keymap)
        self._choices.add_options([Option(line, identity) for identity, line in offered])
        self._choices.highlighted = 0

    def action_command(self, identity: str) -> None:
        if identity in {"turn.take", "turn.earlier", "turn.later", "turn.close"}:
            self.post_message(BY_ID[identity].message())
        elif self._variants is None:
            self._choose(identity)

    def action_code(self, number: int) -> None:
        """Copy the block of code with this number."""
        if self._variants is None and number <= len(code_blocks(self._spot.version.answer)):
            self._dismiss(Chosen("turn.code", self._index, self._spot.version, number=number - 1))

    def on_earlier_turn_wanted(self) -> None:
        self._move(-1)

    def on_later_turn_wanted(self) -> None:
        self._move(1)

    def on_back_wanted(self) -> None:
        if self._variants is None:
            self._dismiss(None)
        else:
            self._show()

    def on_take_wanted(self) -> None:
        self._choices.action_select()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if self._variants is not None:
            variant = self._variants[event.option_index]
            self._dismiss(Chosen("turn.elsewhere", self._index, self._spot.version, model=variant))
        elif event.option_id and event.option_id.startswith("code."):
            self.action_code(int(event.option_id.removeprefix("code.")))
        elif event.option_id:
            self._choose(event.option_id)

    def _move(self, step: int) -> None:
        if self._variants is None and 0 <= self._index + step < len(self._spots):
            self._index += step
            self._show()

    def _choose(self, identity: str) -> None:
        offered = [known for known, _ in offers(self._spot, self.footplate.keymap)]
        blocks = code_blocks(self._spot.version.answer)
        if identity == "turn.elsewhere":
            self.offer_variants()
        elif identity == "turn.prefer" and identity in offered:
            self._dismiss(Chosen(identity, self._index, _next(self._spot)))
        elif identity == "turn.code" and blocks:
            self._dismiss(Chosen(identity, self._index, self._spot.version, number=len(blocks) - 1))
        elif identity in offered:
            self._dismiss(Chosen(identity, self._index, self._spot.version))
        else:
            self._say(f"{BY_ID[identity].title}: not for this turn.")

    def _dismiss(self, chosen: Chosen | None) -> None:
        self._mark(None)
        self.dismiss(chosen)

    def _say(self, words: str) -> None:
        news = self.query_one(".news", Static)
        news.display = True
        news.update(Content(words))

    @work(exclusive=True)
    async def offer_variants(self) -> None:
        """Show what there is to retry on, another runtime of the same model first."""
        daemon = await self.footplate.daemon()
        try:
            models = await daemon.models()
        except errors.FootplateError as error:
            self._say(one_line(error.message))
            return
        answered = self._spot.version.last
        self._variants = variants_to_ask(models, answered.model, answered.variant)
        self._choices.clear_options()
        self._choices.add_options([Option(_variant_line(name)) for name in self._variants])
        self._choices.highlighted = 0 if self._variants else None
        self.query_one(Vertical).border_title = Content("retry on")
        if not self._variants:
            self._say("There is no other model: footplate models tells what can be added.")


def offers(spot: Spot, keymap: Keymap) -> list[tuple[str, Content]]:
    """Give what can be done with a turn: the command's id and its line."""
    version = spot.version
    identities = ["turn.retry", "turn.elsewhere", "turn.edit"]
    if version.answer and version.last.finish_reason in CONTINUED:
        identities.append("turn.continue")
    if len(spot.versions) > 1:
        identities.append("turn.prefer")
    if version.answer:
        identities.append("turn.copy")
    lines = [_command_line(keymap, identity) for identity in identities]
    blocks = code_blocks(version.answer)
    for number, block in enumerate(blocks[:CODE_BLOCKS], start=1):
        first = truncate(one_line(block.text.strip().split("\n")[0]), WIDEST_LINE - 20)
        length = count(block.text.rstrip("\n").count("\n") + 1, "line")
        words = Content.assemble("Copy ", (first, "$secondary"), (f"  {block.language} {length}", "$muted"))
        lines.append((f"code.{number}", _line(str(number), words)))
    rest = (["turn.editor"] if version.answer else []) + ["turn.fork", "turn.details"]
    lines += [_command_line(keymap, identity) for identity in rest]
    if len(spot.versions) > 1:
        other = _next(spot).last
        who = speaker(one_line(other.model or ""), one_line(other.runtime or ""))
        words = Content.assemble("Go on from the answer of ", (who, runtime_colour(other.runtime)))
        key = keymap.command("turn.prefer").shown
        lines[identities.index("turn.prefer")] = ("turn.prefer", _line(key, words))
    return lines


def _command_line(keymap: Keymap, identity: str) -> tuple[str, Content]:
    command = keymap.command(identity)
    return identity, _line(command.shown, command.title)


def variants_to_ask(models: Sequence[ModelInfo], model: str | None, variant: str | None) -> list[str]:
    """Give the variants that can answer in another's place: the same model on other runtimes first."""
    names = [
        (info.name != model, each.name)
        for info in models
        for each in info.variants
        if each.name != variant and "chat" in each.capabilities
    ]
    return [name for _, name in sorted(names, key=lambda each: each[0])]


def _next(spot: Spot) -> Version:
    """Give the version that is chosen next: round the versions, one by one."""
    return spot.versions[(spot.chosen + 1) % len(spot.versions)]


def _line(key: str, words: str | Content) -> Content:
    return Content.assemble((f" {key} ", "bold $footer-key-foreground"), " ", words)


def _variant_line(name: str) -> Content:
    runtime, _, model = one_line(name).partition("/")
    return Content.assemble(" ", (f"{model} @ {runtime}", runtime_colour(runtime)))
