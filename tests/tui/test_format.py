"""How values read."""

import pytest

from footplate_tui import format as formats


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0 ms"),
        (0.012, "12 ms"),
        (0.0996, "0.10 s"),
        (0.214, "0.21 s"),
        (0.9951, "1.0 s"),
        (12.44, "12.4 s"),
        (59.96, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.9, "1 h 00 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert formats.duration(seconds) == text


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(8.714, "8.71 tok/s"), (87.44, "87.4 tok/s"), (312.4, "312 tok/s"), (4919, "4,919 tok/s")],
)
def test_rates(per_second: float, text: str) -> None:
    assert formats.rate(per_second) == text


@pytest.mark.parametrize(
    ("answered", "text"),
    [
        (formats.Answered(), ""),
        (formats.Answered(completion_tokens=612, finish_reason="stop"), "612 tok"),
        (
            formats.Answered(completion_tokens=1200, tokens_per_second=87.4, ttft_seconds=0.21),
            "1,200 tok · 87.4 tok/s · first 0.21 s",
        ),
        (formats.Answered(completion_tokens=5, finish_reason="length"), "5 tok · cut off at max_tokens"),
        (formats.Answered(finish_reason="abort"), "abort"),
    ],
)
def test_figures_of_an_answer(answered: formats.Answered, text: str) -> None:
    assert formats.answer_figures(answered) == text


@pytest.mark.parametrize(
    ("model", "runtime", "text"),
    [("guide", "llamacpp", "guide @ llamacpp"), (None, "vllm", "vllm"), (None, None, "no model")],
)
def test_who_answers(model: str | None, runtime: str | None, text: str) -> None:
    assert formats.speaker(model, runtime) == text


@pytest.mark.parametrize(
    ("text", "width", "cut"),
    [
        ("title", 5, "title"),
        ("a long title", 7, "a long…"),
        ("日本語", 5, "日本…"),
        ("ab", 1, "…"),
        ("ab", 0, ""),
    ],
)
def test_truncating(text: str, width: int, cut: str) -> None:
    assert formats.truncate(text, width) == cut


@pytest.mark.parametrize(("width", "fitting"), [(0, 0), (4, 1), (9, 1), (10, 2), (99, 3)])
def test_only_whole_items_fit(width: int, fitting: int) -> None:
    assert formats.fit(["send", "stop", "quit"], width) == fitting
