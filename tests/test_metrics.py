"""What a Prometheus server fetches: read back with its own parser, counted right, and bounded."""

import json
import random
import re
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from footplate_daemon import wire
from footplate_daemon.gateway.ledger import Entry
from footplate_daemon.metrics.exposition import Metrics
from footplate_daemon.metrics.gauges import BatchFigures
from footplate_daemon.metrics.histogram import INTER_TOKEN_SECONDS, Histogram
from footplate_daemon.store.database import Database
from footplate_daemon.store.exchanges import Exchange, Outcome
from footplate_daemon.store.switches import SwitchStore

ROOT = Path(__file__).parents[1]
VARIANTS = ("llamacpp/guide", "vllm/qwen3-8b")
IDENTITY = wire.Identity(version="1.2.3", pid=1, started_at=0.0)
NO_BATCHES = BatchFigures()
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def metrics(
    status: wire.Status | None = None,
    snapshot: wire.GpuSnapshot | None = None,
    under_way: int = 0,
    batches: BatchFigures = NO_BATCHES,
) -> Metrics:
    found = status or wire.Status(daemon=IDENTITY, active=None, wanted=None)
    return Metrics(lambda: found, lambda: snapshot, lambda: VARIANTS, lambda: under_way, lambda: batches)


def entry(outcome: Outcome = "done", gaps: Iterable[float] = (), **facts: Any) -> Entry:
    given = {"path": "/v1/chat/completions", "runtime": "vllm", "variant": "vllm/qwen3-8b", **facts}
    exchange = Exchange(id=1, request_id="r", started_at=0.0, outcome=outcome, **given)
    return Entry(exchange, lambda: None, gaps=array("d", gaps))


def samples(told: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Give every sample by name and labels."""
    text = told.render()[0].decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


def value(told: Metrics, name: str, /, **labels: str) -> float:
    return samples(told)[name, frozenset(labels.items())]


def exported_names(told: Metrics) -> set[str]:
    """Give every name that a query may use, of families without samples too."""
    text = told.render()[0].decode()
    names = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        names |= {name + suffix for suffix in suffixes}
    return names


def test_exchanges_are_counted_by_what_became_of_them() -> None:
    told = metrics()

    told.counts.count_exchanges([entry(), entry(), entry("failed", path="/v1/embeddings")])

    served = {"runtime": "vllm", "variant": "vllm/qwen3-8b"}
    name = "footplate_requests_total"
    assert value(told, name, **served, path="/v1/chat/completions", outcome="done") == 2
    assert value(told, name, **served, path="/v1/embeddings", outcome="failed") == 1


def test_the_batches_under_way_are_told_with_what_became_of_their_lines() -> None:
    told = metrics(batches=BatchFigures(under_way=2, in_flight=8, left=90, completed=9, failed=1))

    assert value(told, "footplate_batches_under_way") == 2
    assert value(told, "footplate_batch_lines_in_flight") == 8
    assert value(told, "footplate_batch_lines", state="left") == 90
    assert value(told, "footplate_batch_lines", state="failed") == 1


def test_tokens_are_counted_by_kind() -> None:
    told = metrics()

    told.counts.count_exchanges([entry(prompt_tokens=7, completion_tokens=5, cached_tokens=2)] * 3)

    served = {"runtime": "vllm", "variant": "vllm/qwen3-8b"}
    kinds = {
        dict(labels)["kind"]: count
        for (name, labels), count in samples(told).items()
        if name == "footplate_tokens_total" and dict(labels).items() >= served.items()
    }
    assert kinds == {"prompt": 21, "completion": 15, "cached": 6}


def test_an_exchange_that_came_nowhere_is_counted_under_none() -> None:
    told = metrics()

    told.counts.count_exchanges([entry("failed", runtime=None, variant=None)])

    labels = {"runtime": "none", "variant": "none", "path": "/v1/chat/completions", "outcome": "failed"}
    assert value(told, "footplate_requests_total", **labels) == 1


def test_milliseconds_become_seconds() -> None:
    told = metrics()

    told.counts.count_exchanges([entry(total_ms=1500.0, ttft_ms=20.0, queue_ms=0.0)])

    served = {"runtime": "vllm", "variant": "vllm/qwen3-8b"}
    assert value(told, "footplate_request_duration_seconds_sum", **served) == 1.5
    assert value(told, "footplate_time_to_first_token_seconds_sum", **served) == 0.02
    assert value(told, "footplate_queue_seconds_bucket", **served, le="0.001") == 1


def test_many_gaps_at_once_come_to_what_one_by_one_comes_to() -> None:
    dice = random.Random(7)
    gaps = [dice.expovariate(30) for _ in range(5000)] + list(INTER_TOKEN_SECONDS)
    at_once, one_by_one = Histogram(INTER_TOKEN_SECONDS), Histogram(INTER_TOKEN_SECONDS)

    at_once.observe_all(gaps)
    for gap in gaps:
        one_by_one.observe(gap)

    plain = [float(sum(gap <= bound for gap in gaps)) for bound in INTER_TOKEN_SECONDS]
    assert [count for _, count in at_once.buckets()] == [*plain, len(gaps)]
    assert at_once.buckets() == one_by_one.buckets()
    assert at_once.sum == pytest.approx(sum(gaps))


def test_the_gaps_of_streams_add_up() -> None:
    told = metrics()

    told.counts.count_exchanges([entry(gaps=[0.03, 0.004]), entry(gaps=[0.03]), entry()])

    served = {"runtime": "vllm", "variant": "vllm/qwen3-8b"}
    name = "footplate_inter_token_latency_seconds"
    assert value(told, f"{name}_bucket", **served, le="0.005") == 1
    assert value(told, f"{name}_bucket", **served, le="0.03") == 3
    assert value(told, f"{name}_count", **served) == 3
    assert value(told, f"{name}_sum", **served) == pytest.approx(0.064)


def test_ten_thousand_made_up_names_make_one_more_series_each() -> None:
    dice = random.Random(7)
    told = metrics()
    told.counts.count_exchanges([entry(total_ms=1.0, ttft_ms=1.0, queue_ms=1.0, prompt_tokens=1, gaps=[1])])
    before = len(samples(told))

    told.counts.count_exchanges(
        [
            entry(
                runtime=f"r{dice.random()}",
                variant=f"vllm/{dice.random()}",
                path=f"/v1/{dice.random()}",
                model_asked=f"sk-{dice.random()}",
                client=f"somebody {dice.random()}",
                total_ms=1.0,
                ttft_ms=1.0,
                queue_ms=1.0,
                prompt_tokens=1,
                gaps=[1],
            )
            for _ in range(10_000)
        ]
    )

    own = len([name for name, _ in samples(metrics())])
    assert len(samples(told)) - before == before - own
    labels = {"runtime": "other", "variant": "other", "path": "other", "outcome": "done"}
    assert value(told, "footplate_requests_total", **labels) == 10_000


async def test_switches_are_counted_when_they_are_stored(tmp_path: Path) -> None:
    told = metrics()
    switch = wire.Switch(id=1, variant="llamacpp/guide", outcome="done", started_at=100.0, ended_at=103.5)

    async with Database.open(tmp_path / "footplate.db") as database:
        store = SwitchStore(database)
        store.listeners.append(told.counts.count_switch)
        await store.save(switch)

    labels = {"variant": "llamacpp/guide", "outcome": "done"}
    assert value(told, "footplate_switches_total", **labels) == 1
    assert value(told, "footplate_switch_duration_seconds_sum", **labels) == 3.5


def test_engines_and_services_have_one_state_each() -> None:
    told = metrics(
        wire.Status(
            daemon=IDENTITY,
            active=None,
            wanted=None,
            engines=(_engine("vllm-qwen3-8b", state="loading", kv_cache_fraction=0.25),),
            services=(_engine("llamacpp-embed", state="ready", memory_bytes=5_000_000),),
            queue=wire.Queue(waiting=3, capacity=100),
        ),
        under_way=4,
    )

    engine = {"engine": "vllm-qwen3-8b", "variant": "x/vllm-qwen3-8b", "role": "engine"}
    service = {"engine": "llamacpp-embed", "variant": "x/llamacpp-embed", "role": "service"}
    assert value(told, "footplate_engine_state", **engine, state="loading") == 1
    assert value(told, "footplate_engine_state", **engine, state="ready") == 0
    assert value(told, "footplate_engine_kv_cache_ratio", **engine) == 0.25
    assert value(told, "footplate_engine_state", **service, state="ready") == 1
    assert value(told, "footplate_engine_memory_bytes", **service) == 5_000_000
    assert value(told, "footplate_queue_waiting") == 3
    assert value(told, "footplate_exchanges_under_way") == 4


def test_two_launches_of_a_variant_are_one_series() -> None:
    two = (_engine("vllm-a", state="stopping"), _engine("vllm-a", state="starting"))
    told = metrics(wire.Status(daemon=IDENTITY, active=None, wanted=None, engines=two))

    lines = [line for line in told.render()[0].decode().splitlines() if 'state="starting"' in line]

    assert len(lines) == 1
    assert lines[0].endswith(" 1.0")


def test_a_gpu_is_shown_with_what_it_tells_and_a_lost_one_as_down() -> None:
    read = wire.Sample(
        index=0,
        uuid="GPU-1",
        name="H200",
        utilisation_percent=50.0,
        memory_total_bytes=100,
        temperature_celsius=41.0,
    )
    lost = wire.Sample(index=1, uuid="GPU-2", name="H200", problem="It is gone.")
    told = metrics(snapshot=wire.GpuSnapshot(at=1.0, gpus=(read, lost), cpu_percent=25.0, ram_total_bytes=9))

    first = {"gpu": "0", "uuid": "GPU-1", "name": "H200"}
    second = {"gpu": "1", "uuid": "GPU-2", "name": "H200"}
    assert value(told, "footplate_gpu_utilisation_ratio", **first) == 0.5
    assert value(told, "footplate_gpu_temperature_celsius", **first) == 41
    assert value(told, "footplate_gpu_up", **first) == 1
    assert value(told, "footplate_gpu_up", **second) == 0
    assert ("footplate_gpu_power_watts", frozenset(first.items())) not in samples(told)
    assert value(told, "footplate_host_cpu_ratio") == 0.25
    assert value(told, "footplate_host_memory_total_bytes") == 9


def test_the_daemon_tells_its_version_and_its_own_process() -> None:
    told = metrics()

    assert value(told, "footplate_build_info", version="1.2.3") == 1
    assert value(told, "process_resident_memory_bytes") > 1_000_000
    assert value(told, "process_open_fds") > 0


def test_who_asks_for_openmetrics_gets_it() -> None:
    told = metrics()
    told.counts.count_exchanges([entry(total_ms=3.0)])

    body, content_type = told.render(OPENMETRICS)

    assert content_type.startswith("application/openmetrics-text")
    families = parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]  # theirs has no types
    assert "footplate_requests" in {family.name for family in families}
    assert told.render()[1].startswith("text/plain; version=0.0.4")


def test_names_are_as_prometheus_wants_them() -> None:
    ours = [name for name in exported_names(metrics()) if not name.startswith("process_")]

    assert [name for name in ours if not name.startswith("footplate_")] == []
    assert [name for name in ours if re.search(r"_(ms|milliseconds|percent|mib|mb|kb)(_|$)", name)] == []


DASHBOARD = ROOT / "docs" / "examples" / "grafana-dashboard.json"
ALERTS = ROOT / "docs" / "examples" / "footplate-alerts.yml"
DOCUMENT = ROOT / "docs" / "monitoring.md"


def queried_names(text: str) -> set[str]:
    return set(re.findall(r"\b(?:footplate|process)_[a-z_]+\b", text))


def test_every_query_of_the_dashboard_asks_for_what_there_is() -> None:
    queries = expressions(json.loads(DASHBOARD.read_text()))

    asked = set().union(*map(queried_names, queries))
    assert len(queries) > 20
    assert all(queried_names(query) for query in queries)
    assert sorted(asked - exported_names(metrics())) == []


def expressions(node: Any) -> list[str]:
    """Give every query below a node of the dashboard."""
    if isinstance(node, list):
        return [found for each in node for found in expressions(each)]
    if not isinstance(node, dict):
        return []
    here = [node["expr"]] if "expr" in node else []
    here += [node["query"]["query"]] if isinstance(node.get("query"), dict) else []
    return here + [found for each in node.values() for found in expressions(each)]


def test_every_alert_asks_for_what_there_is() -> None:
    asked = queried_names(ALERTS.read_text())

    assert asked
    assert sorted(asked - exported_names(metrics())) == []


def test_panels_of_the_dashboard_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]

    squares = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(set(squares)) == len(squares)
    assert max(x for x, _ in squares) < 24


def test_every_metric_in_the_document_exists_and_every_one_of_ours_is_in_it() -> None:
    told = queried_names(DOCUMENT.read_text())
    exported = exported_names(metrics())
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported}

    assert sorted(told - exported - families) == []
    assert sorted(name for name in families - told if name.startswith("footplate_")) == []


def _engine(name: str, state: str, **facts: Any) -> wire.Engine:
    return wire.Engine(
        name=name,
        runtime="vllm",
        variant=f"x/{name}",
        model=name,
        state=wire.EngineState(state),
        since=0.0,
        **facts,
    )
