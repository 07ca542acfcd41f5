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
from footplate_tui.format import Answered, answer_figures, speaker
from footplate_tui.harmless import harmless, one_line
from footplate_tui.slim_writer import is_behind
from footplate_tui.theme import RUNTIMES, runtime_colour
from footplate_tui.widgets.ground import empty_rows
from footplate_tui.widgets.prose import Prose
from footplate_tui.widgets.reasoning import Reasoning

if TYPE_CHECKING:
    from textual.geometry import Region
    from textual.strip import Strip

    from footplate_daemon.wire import Turn

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
    """The answer of one turn, whole or still coming."""

    def __init__(self, spoken: Spoken, prose: Prose | None = None) -> None:
        super().__init__(classes=f"-{spoken.runtime}" if spoken.runtime in RUNTIMES else None)
        self.text = ""
        """The answer so far, as it came."""
        self._reasoning_text = ""
        self._spoken = spoken
        self._prose = prose or Prose()
        self._label = Static(markup=False, classes="label")
        self._labelled = Content()
        self._undrawn = ""
        self._undrawn_reasoning = ""
        self._timer: Timer | None = None
        self._thinking_since: float | None = None
        self._drawn_in = 0.0
        self._turn: Turn | None = None
        self._failure: FootplateError | None = None
        self._has_parts = False
        # A timer and whoever follows the turn both draw.
        self._drawing = asyncio.Lock()

    @classmethod
    def of_turn(cls, turn: Turn) -> Answer:
        """Make the answer of a turn that is not being followed (yet)."""
        prose = Prose(harmless(turn.answer), is_whole=turn.state.value in FINISHED)
        answer = cls(Spoken(turn.model, turn.runtime), prose)
        answer.text = turn.answer
        answer._reasoning_text = turn.reasoning
        answer._turn = turn
        return answer

    def compose(self) -> ComposeResult:
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

    def grow(self, content: str, reasoning: str) -> None:
        """Take more of the answer; it is drawn soon."""
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
        if turn.answer.startswith(self.text) and turn.reasoning.startswith(self._reasoning_text):
            content, reasoning = turn.answer[len(self.text) :], turn.reasoning[len(self._reasoning_text) :]
            if content or reasoning:
                self.grow(content, reasoning)
        elif not self.text.startswith(turn.answer):
            await self._begin_anew(turn)
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

    async def _begin_anew(self, turn: Turn) -> None:
        self.text, self._reasoning_text = turn.answer, turn.reasoning
        self._undrawn, self._undrawn_reasoning = turn.answer, turn.reasoning
        async with self._drawing:
            self._prose.clear()
            await self.query(Reasoning).remove()

    async def _reasoning(self) -> Reasoning:
        for reasoning in self.query(Reasoning):
            return reasoning
        reasoning = Reasoning()
        await self.mount(reasoning, before=0)
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
        error = self.query_one(".error", Static)
        failure = self._failure or (self._turn.error if self._turn else None)
        error.display = failure is not None
        if failure:
            hint = Content.styled(f"\n{harmless(failure.hint)}", "$muted") if failure.hint else Content("")
            error.update(Content.assemble(("✗ ", "$error"), harmless(failure.message), hint))
        label = self._label_content()
        if label != self._labelled:
            self._labelled = label
            self._label.update(label)
        if self._spoken.runtime in RUNTIMES:
            self.add_class(f"-{self._spoken.runtime}")

    def _label_content(self) -> Content:
        who = Content.assemble(
            (
                speaker(one_line(self._spoken.model or ""), one_line(self._spoken.runtime or "")),
                runtime_colour(self._spoken.runtime),
            )
        )
        state = self._turn.state.value if self._turn else ""
        ended = {"stopped": (" · stopped", "$warning"), "failed": (" · failed", "$error")}.get(state, "")
        return Content.assemble(who, (self._how(), "$muted"), ended)

    def _how(self) -> str:
        turn = self._turn
        if self._failure:
            return " · lost"
        state = turn.state.value if turn else "waiting"
        if turn is None or state in {"waiting", "streaming"}:
            return " · answering" if self.text or self._reasoning_text else " · waiting for the first token"
        figures = answer_figures(
            Answered(
                completion_tokens=turn.completion_tokens,
                tokens_per_second=turn.tokens_per_second,
                ttft_seconds=turn.ttft_seconds,
                finish_reason=turn.finish_reason if state == "done" else None,
            )
        )
        return f" · {figures}" if figures else ""
