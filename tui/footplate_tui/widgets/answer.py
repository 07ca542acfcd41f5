"""One answer: reasoning, text, who wrote it and how fast.

Text streams in by a few draws a second. Finished Markdown segments are mounted once and never touched
again; the open tail is one plain text, so the cost of a draw does not grow with the answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Static

from footplate_daemon.errors import FootplateError
from footplate_tui.format import Answered, answer_figures, speaker
from footplate_tui.harmless import harmless, one_line
from footplate_tui.markdown_segments import Segment, Segmenter
from footplate_tui.theme import RUNTIMES, runtime_colour
from footplate_tui.widgets.reasoning import Reasoning

if TYPE_CHECKING:
    from textual.widgets import Markdown

    from footplate_daemon.wire import Turn

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

    @dataclass
    class LinkChosen(Message):
        """The user chose a link in an answer; nothing was opened."""

        href: str

    def __init__(self, spoken: Spoken) -> None:
        super().__init__()
        self.text = ""
        """The answer so far, as it came."""
        self._reasoning_text = ""
        self._spoken = spoken
        self._segmenter = Segmenter()
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
        answer = cls(Spoken(turn.model, turn.runtime))
        answer.text = turn.answer
        answer._reasoning_text = turn.reasoning
        answer._undrawn = turn.answer
        answer._turn = turn
        return answer

    def compose(self) -> ComposeResult:
        if self._reasoning_text:
            yield Reasoning(self._reasoning_text)
        segments = self._segmenter.feed(harmless(self._undrawn))
        self._undrawn = ""
        if self._turn and self._turn.state.value in {"done", "stopped", "failed"}:
            segments += self._segmenter.finish()
        yield from _markdowns(segments)
        yield Static(self._tail(), markup=False, classes="tail")
        yield Static(markup=False, classes="error")
        yield Static(self._label(), markup=False, classes="label")

    def on_mount(self) -> None:
        self._has_parts = True
        self._show_tail()
        self._show_end()

    def grow(self, content: str, reasoning: str) -> None:
        """Take more of the answer; it is drawn soon."""
        self.text += content
        self._undrawn += content
        self._reasoning_text += reasoning
        self._undrawn_reasoning += reasoning
        if reasoning and self._thinking_since is None:
            self._thinking_since = monotonic()
        if self._timer is None:
            self._timer = self.set_timer(max(DRAW_SECONDS, self._drawn_in / DRAW_SHARE), self._draw)

    async def show(self, turn: Turn) -> None:
        """Take the turn as the daemon has it: more is added, other text replaces ours."""
        self._turn = turn
        self._spoken = Spoken(turn.model or self._spoken.model, turn.runtime or self._spoken.runtime)
        is_finished = turn.state.value in {"done", "stopped", "failed"}
        if turn.answer.startswith(self.text) and turn.reasoning.startswith(self._reasoning_text):
            content, reasoning = turn.answer[len(self.text) :], turn.reasoning[len(self._reasoning_text) :]
            if content or reasoning:
                self.grow(content, reasoning)
        elif not self.text.startswith(turn.answer):
            await self._begin_anew(turn)
        await self._draw()
        if is_finished:
            await self._finish()
        self._show_end()

    async def fail(self, error: FootplateError) -> None:
        """End it with an error of which the daemon's turn knows nothing."""
        self._failure = error
        await self._draw()
        await self._finish()
        self._show_end()

    def toggle_reasoning(self) -> None:
        """Open or close the reasoning, if there is any."""
        for reasoning in self.query(Reasoning):
            reasoning.toggle()

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
                    await self._mount(self._segmenter.feed(content))
                self._show_tail()
                self._show_end()
        self._drawn_in = monotonic() - started_at

    async def _finish(self) -> None:
        async with self._drawing:
            with self.app.batch_update():
                self._stop_thinking()
                await self._mount(self._segmenter.finish())
                self._show_tail()

    async def _begin_anew(self, turn: Turn) -> None:
        self.text, self._reasoning_text = turn.answer, turn.reasoning
        self._undrawn, self._undrawn_reasoning = turn.answer, turn.reasoning
        async with self._drawing:
            self._segmenter = Segmenter()
            await self.query(".segment, Reasoning").remove()

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

    async def _mount(self, segments: list[Segment]) -> None:
        if segments:
            await self.mount_all(_markdowns(segments), before=self.query_one(".tail"))

    def _tail(self) -> Content:
        tail = self._segmenter.tail
        if self._segmenter.tail_is_code:
            tail = tail.partition("\n")[2]
        return Content(tail.strip("\n"))

    def _show_tail(self) -> None:
        tail = self.query_one(".tail", Static)
        content = self._tail()
        tail.display = bool(content)
        tail.set_class(self._segmenter.tail_is_code, "-code")
        tail.update(content)

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
        self.query_one(".label", Static).update(self._label())
        if self._spoken.runtime in RUNTIMES:
            self.add_class(f"-{self._spoken.runtime}")

    def _label(self) -> Content:
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


def _markdowns(segments: list[Segment]) -> list[Markdown]:
    # Textual's Markdown costs 60 ms to import: not before the first answer is shown.
    from textual.widgets import Markdown  # noqa: PLC0415

    return [
        Markdown(
            segment.text,
            open_links=False,
            classes="segment -continued" if segment.is_continued else "segment",
        )
        for segment in segments
    ]
