"""What has happened: exchanges and switches, counted in groups and off the hot path.

Labels are bounded: a variant is one of the catalog's, a path one of those that are answered. What a client
made up is `other`; what an exchange never came to have is `none`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from footplate_daemon.gateway.ledger import Entry
from footplate_daemon.metrics.histogram import (
    FIRST_TOKEN_SECONDS,
    INTER_TOKEN_SECONDS,
    QUEUE_SECONDS,
    REQUEST_SECONDS,
    SWITCH_SECONDS,
    Histogram,
)
from footplate_daemon.settings import RUNTIMES
from footplate_daemon.store.exchanges import Exchange
from footplate_daemon.wire import Switch

PATHS = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/embeddings",
        "/v1/rerank",
        "/rerank",
        "/v1/score",
        "/score",
    }
)
"""Those that a label may name."""
Labels = tuple[str, ...]


class Counts(Collector):
    """Counts what it is told; `variants` gives the names that a label may have."""

    def __init__(self, variants: Callable[[], Collection[str]]) -> None:
        self._variants = variants
        self._requests: Counter[Labels] = Counter()
        self._tokens: Counter[Labels] = Counter()
        self._switches: Counter[Labels] = Counter()
        self._durations = _histograms(REQUEST_SECONDS)
        self._first_tokens = _histograms(FIRST_TOKEN_SECONDS)
        self._gaps = _histograms(INTER_TOKEN_SECONDS)
        self._queues = _histograms(QUEUE_SECONDS)
        self._switch_durations = _histograms(SWITCH_SECONDS)

    def count_exchanges(self, entries: Sequence[Entry]) -> None:
        """Take in exchanges that have ended."""
        variants = self._variants()
        for entry in entries:
            exchange = entry.exchange
            labels = (_known(exchange.runtime, RUNTIMES), _known(exchange.variant, variants))
            self._requests[*labels, _known(exchange.path, PATHS), exchange.outcome] += 1
            self._count_tokens(labels, exchange)
            self._count_times(labels, exchange)
            if entry.gaps:
                self._gaps[labels].observe_all(entry.gaps)

    def count_switch(self, switch: Switch) -> None:
        """Take in a switch that has ended."""
        variant = _known(switch.variant, self._variants())
        self._switches[variant, switch.outcome] += 1
        if switch.ended_at is not None:
            self._switch_durations[variant, switch.outcome].observe(
                max(0.0, switch.ended_at - switch.started_at)
            )

    def collect(self) -> Iterator[Metric]:
        """Give every family, those without a value yet too: who looks for its name finds it."""
        served = ("runtime", "variant")
        yield _counters(
            "footplate_requests", "Exchanges that have ended.", (*served, "path", "outcome"), self._requests
        )
        yield _counters(
            "footplate_tokens", "Tokens as engines counted them.", (*served, "kind"), self._tokens
        )
        yield _family(
            "footplate_request_duration_seconds",
            "From the arrival of a request to the end of its answer, its wait included.",
            served,
            self._durations,
        )
        yield _family(
            "footplate_time_to_first_token_seconds",
            "From when an engine was free for a request to the first token of its answer.",
            served,
            self._first_tokens,
        )
        yield _family(
            "footplate_inter_token_latency_seconds",
            "Between two chunks of a stream that held something.",
            served,
            self._gaps,
        )
        yield _family(
            "footplate_queue_seconds", "How long a request waited for an engine.", served, self._queues
        )
        switched = ("variant", "outcome")
        yield _counters("footplate_switches", "Switches that have ended.", switched, self._switches)
        yield _family(
            "footplate_switch_duration_seconds", "How long a switch took.", switched, self._switch_durations
        )

    def _count_tokens(self, labels: Labels, exchange: Exchange) -> None:
        for kind, count in (
            ("prompt", exchange.prompt_tokens),
            ("completion", exchange.completion_tokens),
            ("reasoning", exchange.reasoning_tokens),
            ("cached", exchange.cached_tokens),
        ):
            if count:
                self._tokens[*labels, kind] += count

    def _count_times(self, labels: Labels, exchange: Exchange) -> None:
        for histograms, milliseconds in (
            (self._durations, exchange.total_ms),
            (self._first_tokens, exchange.ttft_ms),
            (self._queues, exchange.queue_ms),
        ):
            if milliseconds is not None:
                histograms[labels].observe(milliseconds / 1000)


def _histograms(bounds: Sequence[float]) -> defaultdict[Labels, Histogram]:
    return defaultdict(lambda: Histogram(bounds))


def _known(name: str | None, names: Collection[str]) -> str:
    if name is None:
        return "none"
    return name if name in names else "other"


def _counters(
    name: str, text: str, label_names: Labels, counts: Mapping[Labels, float]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=label_names)
    for labels, count in counts.items():
        family.add_metric(labels, count)
    return family


def _family(
    name: str, text: str, label_names: Labels, histograms: Mapping[Labels, Histogram]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=label_names)
    for labels, histogram in histograms.items():
        family.add_metric(labels, histogram.buckets(), histogram.sum)
    return family
