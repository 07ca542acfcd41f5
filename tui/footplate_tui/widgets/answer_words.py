"""What stands under an answer: what went wrong, who wrote it and how fast, and on demand the rest. Pure."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

from textual.content import Content

from footplate_daemon.errors import FootplateError
from footplate_tui.format import Answered, answer_figures, speaker
from footplate_tui.harmless import harmless, one_line
from footplate_tui.theme import runtime_colour

if TYPE_CHECKING:
    from footplate_daemon.wire import Diagnosis, Turn, TurnError

EVIDENCE_LINES = 3
ENDINGS = {"stopped": (" · stopped", "$warning"), "failed": (" · failed", "$error")}


def trouble(turn: Turn | None, failure: FootplateError | None) -> Content:
    """Say what went wrong and what helps, and what is odd about an answer that did not fail; else nothing."""
    parts = []
    error: FootplateError | TurnError | None = failure or (turn.error if turn else None)
    if error:
        parts.append(Content.assemble(("✗ ", "$error"), harmless(error.message)))
        diagnosis = turn.error.diagnosis if turn and turn.error else None
        if diagnosis:
            parts.extend(_diagnosis(diagnosis, error.message))
        if error.hint:
            parts.append(Content.styled(harmless(error.hint), "$muted"))
    if turn and turn.warning:
        parts.append(Content.assemble(("⚠ ", "$warning"), harmless(turn.warning)))
    return Content("\n").join(parts)


def _diagnosis(diagnosis: Diagnosis, message: str) -> list[Content]:
    cause = one_line(diagnosis.cause)
    parts = [] if cause in message else [Content.styled(cause, "bold")]
    parts += [Content.styled(f"│ {one_line(line)}", "$muted") for line in diagnosis.evidence[:EVIDENCE_LINES]]
    for remedy in diagnosis.remedies:
        command = f"  $ {one_line(remedy.command)}" if remedy.command else ""
        parts.append(Content.assemble(("→ ", "$success"), one_line(remedy.title), (command, "$muted")))
    return parts


def label(speaking: tuple[str | None, str | None], how: str, turn: Turn | None, stands: str) -> Content:
    """Give the line of an answer: model and runtime, figures, how it ended, how it stands beside others."""
    model, runtime = speaking
    who = speaker(one_line(model or ""), one_line(runtime or ""))
    ended = ENDINGS.get(turn.state.value if turn else "", "")
    return Content.assemble(
        (who, runtime_colour(runtime)), (f" · {how}" if how else "", "$muted"), ended, (stands, "$primary")
    )


def figures(turn: Turn) -> str:
    """Give the figures of an answer that has ended."""
    return answer_figures(
        Answered(
            completion_tokens=turn.completion_tokens,
            tokens_per_second=turn.tokens_per_second,
            ttft_seconds=turn.ttft_seconds,
            finish_reason=turn.finish_reason if turn.state.value == "done" else None,
            seconds=turn.ended_at - turn.asked_at if turn.ended_at else None,
        )
    )


def details(turn: Turn) -> Content:
    """Give what is told on demand: request, variant, preset, profile, parameters, prompt tokens, when."""
    asked = datetime.fromtimestamp(turn.asked_at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    known = {
        "request": turn.request_id,
        "variant": turn.variant,
        "preset": turn.preset,
        "profile": turn.profile,
        "parameters": json.dumps(turn.parameters, ensure_ascii=False) if turn.parameters else None,
        "prompt": f"{turn.prompt_tokens:,} tok" if turn.prompt_tokens is not None else None,
        "ended by": turn.finish_reason,
        "asked": asked,
        "turn": f"{turn.number} of session {turn.session_id}",
    }
    told = [
        Content.assemble((f"{name} ", "$muted"), one_line(value)) for name, value in known.items() if value
    ]
    return Content(" · ").join(told)
