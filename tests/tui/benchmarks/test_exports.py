"""Runs as JSON, CSV, Markdown and HTML."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest
from tests.tui.benchmarks.runs import Engine, Matrix, run

from footplate_daemon.wire_benchmarks import BenchmarkRun, WorkloadKind
from footplate_tui.benchmarks import exports
from footplate_tui.benchmarks.report.markup import Markup, element
from footplate_tui.benchmarks.report.scale import scale

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m|=1+1"
VOID = {"meta", "br", "hr", "img", "link", "input"}


@pytest.fixture(scope="module")
def measured() -> BenchmarkRun:
    whole = run(
        Engine(answers=[HOSTILE, "left"]),
        Engine("vllm", itl_ms=4, fails=1, ignored=("ignore_eos",), answers=["", "right"]),
        Engine("ollama", error=HOSTILE),
        matrix=Matrix(workloads=(WorkloadKind.SHORT, WorkloadKind.CHAT), concurrency=(1, 4), repeats=2),
    )
    return whole.model_copy(update={"title": HOSTILE, "warnings": (HOSTILE,)})


def test_json_is_the_run_itself(measured: BenchmarkRun) -> None:
    assert BenchmarkRun.model_validate_json(exports.as_json(measured)) == measured


def test_csv_has_a_row_for_each_cell(measured: BenchmarkRun) -> None:
    rows = list(csv.DictReader(io.StringIO(exports.as_csv(measured))))

    assert len(rows) == len(measured.cells) == 24
    first = rows[0]
    summary = measured.cells[0].summary
    assert summary
    assert summary.ttft
    assert float(first["ttft_p95_ms"]) == summary.ttft.p95
    assert (first["variant"], first["workload"], first["completed"]) == ("llamacpp/guide", "short", "24")
    assert (first["load_cold_seconds"], first["ram_peak_bytes"]) == ("2.0", "60000000")
    assert rows[8]["ignored"] == "ignore_eos"
    assert not any("\n" in row["error"] or "\x1b" in row["error"] for row in rows)


def test_a_spreadsheet_takes_nothing_for_a_formula() -> None:
    text = exports.as_csv(run(Engine(error="=HYPERLINK(1)")))

    assert next(csv.DictReader(io.StringIO(text)))["error"] == "'=HYPERLINK(1)"


def test_markdown_has_the_verdict_and_tables_that_text_does_not_break(measured: BenchmarkRun) -> None:
    text = exports.as_markdown(measured)

    assert "**Of guide llamacpp/guide alone was measured" in text
    assert "<script" not in text
    assert "\x1b" not in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {13, 7}


class Reader(HTMLParser):
    """Sees that everything that is opened is closed, and what the page would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.suspicious: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._judge(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self._judge(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def _judge(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "img", "link", "iframe", "object"}:
            self.suspicious.append(tag)
        self.suspicious += [name for name, _ in attrs if name.startswith("on") or name in {"src", "href"}]


def test_the_page_is_well_formed_runs_nothing_and_fetches_nothing(measured: BenchmarkRun) -> None:
    text = exports.FORMATS["html"](measured)

    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    assert reader.suspicious == []
    assert "default-src &#x27;none&#x27;" in text
    assert "url(" not in text
    assert "http:" not in text.replace("http-equiv", "")
    assert "\x1b" not in text


def test_the_page_has_every_chart(measured: BenchmarkRun) -> None:
    text = exports.FORMATS["html"](measured)

    titles = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    assert titles.count("Time to first token") == titles.count("Latency") == 4
    assert titles.count("Tokens per second, all together") == 2
    assert {"Memory of the processes (RAM)", "From start to ready"} <= set(titles)
    assert "While it was measured" in text


def test_the_page_marks_where_answers_part(measured: BenchmarkRun) -> None:
    text = exports.FORMATS["html"](measured)

    assert "&lt;/pre&gt;&lt;script&gt;alert(1)" in text
    assert "<mark>" in text
    assert "ignore_eos is ignored" in text


@pytest.mark.parametrize(
    "sparse",
    [
        run(Engine(error="no")),
        run(Engine(), environment=None),
        run(Engine(fails=24)),
        run(Engine(tokens=1), matrix=Matrix(requests=1)),
        run(Engine()).model_copy(update={"started_at": None, "ended_at": None, "cells": ()}),
    ],
)
def test_little_was_measured_and_still_there_is_a_page(sparse: BenchmarkRun) -> None:
    for form in exports.FORMATS.values():
        assert form(sparse)


def test_text_is_escaped_and_markup_is_not() -> None:
    inner = element("b", "<&>", title='"')

    assert element("p", inner, "<i>") == '<p><b title="&quot;">&lt;&amp;&gt;</b>&lt;i&gt;</p>'
    assert element("i", Markup("<hr/>"), class_="x", data_x=None) == '<i class="x"><hr/></i>'


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([3.0, 9.0], [0, 5, 10]),
        ([0.0], [0, 0.5, 1.0]),
        ([30.0, 330.0], [0, 100, 200, 300, 400]),
        ([3.0, 90.0], [2, 5, 10, 20, 50, 100]),
        ([1.0, 9000.0], [1, 10, 100, 1000, 10_000]),
    ],
)
def test_axes_end_on_round_numbers(values: list[float], ticks: list[float]) -> None:
    axis = scale(values, 0, 100)

    assert axis.ticks == pytest.approx(ticks)
    assert (axis(ticks[0]), axis(ticks[-1])) == pytest.approx((0, 100))


def test_programs_get_answers_as_json(measured: BenchmarkRun) -> None:
    from footplate_tui.benchmarks import agreement  # noqa: PLC0415

    first = next(agreement.side_by_side(measured))

    told = json.loads(json.dumps(exports.asked_as_json(first)))
    assert told["square"] == {"workload": "short", "concurrency": 1}
    assert told["equal"] is None
