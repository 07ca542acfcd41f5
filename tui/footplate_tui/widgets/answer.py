"""One answer: reasoning, text, who wrote it and how fast.

Text streams in by a few draws a second, fewer where drawing is slow or the terminal does not keep up.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static

from footplate_daemon.errors import FootplateError
from footplate_tui.harmless import harmless
from footplate_tui.slim_writer import is_behind
from footplate_tui.theme import RUNTIMES
from footplate_tui.widgets import answer_words
from footplate_tui.widgets.ground import empty_rows
from footplate_tui.widgets.pace import Pace
from footplate_tui.widgets.prose import Prose
from footplate_tui.widgets.reasoning import Reasoning

if TYPE_CHECKING:
    from textual.geometry import Region
    from textual.strip import Strip

    from footplate_daemon.wire import Turn
    from footplate_tui.places import Version

FINISHED = frozenset({"done", "stopped", "failed"})

DRAW_SECONDS = 1 / 12
DRAW_SHARE = 0.5
"""Drawing may take this share of the time: when it is slow it is done less often."""


@dataclass(frozen=True)
class Spoken:
    """Who is answering, as far as is known before the turn says so."""

    model: str | None = None
    runtime: str | None = None


class Answer(Vertical):
    """One answer, whole or still coming: of a turn, and of those that go on with it."""

    def __init__(self, spoken: Spoken, prose: Prose | None = None) -> None:
        super().__init__(classes=f"-{spoken.runtime}" if spoken.runtime in RUNTIMES else None)
        self.text = ""
        """The answer so far, as it came."""
        self._reasoning_text = ""
        self._before = ("", "")
        """The text and the reasoning of the turns that the last one goes on with."""
        self._asked = ""
        """What was asked, where that is not what stands above."""
        self._stands = ""
        """How it stands among other answers to the question."""
        self._shows_details = False
        self._spoken = spoken
        self._prose = prose or Prose()
        self._label = Static(markup=False, classes="label")
        self._labelled = Content()
        self._undrawn = ""
        self._undrawn_reasoning = ""
        self._timer: Timer | None = None
        self._thinking_since: float | None = None
        self._drawn_in = 0.0
        self._pace = Pace()
        self._turn: Turn | None = None
        self._failure: FootplateError | None = None
        self._has_parts = False
        # A timer and whoever follows the turn both draw.
        self._drawing = asyncio.Lock()

    @classmethod
    def of_version(
        cls, version: Version, spoken: Spoken | None = None, *, asked: str = "", stands: str = ""
    ) -> Answer:
        """Make the answer of turns that are not being followed (yet).

        `spoken`: who will answer, as long as the turn does not say so.
        """
        turn = version.last
        prose = Prose(harmless(version.answer), is_whole=turn.state.value in FINISHED)
        told = spoken or Spoken()
        answer = cls(Spoken(turn.model or told.model, turn.runtime or told.runtime), prose)
        answer.text = version.answer
        answer._reasoning_text = version.reasoning
        answer._before = (
            version.answer[: len(version.answer) - len(turn.answer)],
            version.reasoning[: len(version.reasoning) - len(turn.reasoning)],
        )
        answer._turn = turn
        answer._asked, answer._stands = asked, stands
        return answer

    def compose(self) -> ComposeResult:
        if self._asked:
            yield Static(harmless(self._asked), markup=False, classes="asked")
        if self._reasoning_text:
            yield Reasoning(self._reasoning_text)
        yield self._prose
        yield Static(markup=False, classes="error")
        yield self._label

    def on_mount(self) -> None:
        self._has_parts = True
        self._show_end()

    def render_lines(self, crop: Region) -> list[Strip]:
        """Give nothing but ground: the parts paint themselves."""
        return empty_rows(self, crop)

    def grow(self, content: str, reasoning: str, pieces: int | None = None) -> None:
        """Take more of the answer; it is drawn soon. `pieces`: in how many it has been sent so far."""
        self._pace.take(pieces, monotonic())
        self.text += content
        self._undrawn += content
        self._reasoning_text += reasoning
        self._undrawn_reasoning += reasoning
        if reasoning and self._thinking_since is None:
            self._thinking_since = monotonic()
        if self._timer is None:
            self._draw_later()

    async def show(self, turn: Turn) -> None:
        """Take the turn as the daemon has it: more is added, other text replaces ours."""
        self._turn = turn
        self._spoken = Spoken(turn.model or self._spoken.model, turn.runtime or self._spoken.runtime)
        text, thought = self._before[0] + turn.answer, self._before[1] + turn.reasoning
        if text.startswith(self.text) and thought.startswith(self._reasoning_text):
            content, reasoning = text[len(self.text) :], thought[len(self._reasoning_text) :]
            if content or reasoning:
                self.grow(content, reasoning)
        elif not self.text.startswith(text):
            await self._begin_anew(text, thought)
        await self._draw()
        if turn.state.value in FINISHED:
            self._finish()
        self._show_end()

    async def fail(self, error: FootplateError) -> None:
        """End it with an error of which the daemon's turn knows nothing."""
        self._failure = error
        await self._draw()
        self._finish()
        self._show_end()

    def toggle_reasoning(self) -> None:
        """Open or close the reasoning, if there is any."""
        for reasoning in self.query(Reasoning):
            reasoning.toggle()

    def toggle_details(self) -> None:
        """Show or hide what the label leaves out: the request's id, preset, parameters."""
        self._shows_details = not self._shows_details
        self._show_end()

    def _draw_later(self) -> None:
        self._timer = self.set_timer(max(DRAW_SECONDS, self._drawn_in / DRAW_SHARE), self._draw_when_taken)

    async def _draw_when_taken(self) -> None:
        """Draw, unless the terminal still has to take the last picture: then later, and more at once."""
        if is_behind(self.app):
            self._draw_later()
        else:
            await self._draw()

    async def _draw(self) -> None:
        started_at = monotonic()
        if self._timer:
            self._timer.stop()
            self._timer = None
        if not self._has_parts or not (self._undrawn or self._undrawn_reasoning):
            return
        content, self._undrawn = harmless(self._undrawn), ""
        reasoning, self._undrawn_reasoning = self._undrawn_reasoning, ""
        async with self._drawing:
            with self.app.batch_update():
                if reasoning:
                    (await self._reasoning()).grow(reasoning)
                if content:
                    self._stop_thinking()
                    self._prose.grow(content)
                self._show_end()
        self._drawn_in = monotonic() - started_at

    def _finish(self) -> None:
        with self.app.batch_update():
            self._stop_thinking()
            self._prose.finish()

    async def _begin_anew(self, text: str, reasoning: str) -> None:
        self.text, self._reasoning_text = text, reasoning
        self._undrawn, self._undrawn_reasoning = text, reasoning
        async with self._drawing:
            self._prose.clear()
            await self.query(Reasoning).remove()

    async def _reasoning(self) -> Reasoning:
        for reasoning in self.query(Reasoning):
            return reasoning
        reasoning = Reasoning()
        await self.mount(reasoning, before=self._prose)
        return reasoning

    def _stop_thinking(self) -> None:
        if self._thinking_since is not None:
            seconds = monotonic() - self._thinking_since
            self._thinking_since = None
            for reasoning in self.query(Reasoning):
                reasoning.close(seconds)

    def _show_end(self) -> None:
        """Show what stands under the text: the error where there is one, and the label."""
        if not self._has_parts:
            return
        trouble = answer_words.trouble(self._turn, self._failure)
        error = self.query_one(".error", Static)
        error.display = bool(trouble.plain)
        if trouble.plain:
            error.update(trouble)
        label = self._label_content()
        if label != self._labelled:
            self._labelled = label
            self._label.update(label)
        if self._spoken.runtime in RUNTIMES:
            self.add_class(f"-{self._spoken.runtime}")

    def _label_content(self) -> Content:
        spoken = (self._spoken.model, self._spoken.runtime)
        label = answer_words.label(spoken, self._how(), self._turn, self._stands)
        if self._shows_details and self._turn:
            return Content.assemble(label, "\n", answer_words.details(self._turn))
        return label

    def _how(self) -> str:
        if self._failure:
            return "lost"
        if self._turn is None or self._turn.state.value not in FINISHED:
            has_begun = bool(self.text or self._reasoning_text)
            return self._pace.words if has_begun else "waiting for the first token"
        return answer_words.figures(self._turn)
