"""The text that a Prometheus server fetches."""

from collections.abc import Callable, Collection

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from footplate_daemon.metrics.counting import Counts
from footplate_daemon.metrics.gauges import BatchFigures, Gauges
from footplate_daemon.wire import GpuSnapshot, Status


class Metrics:
    """What is counted, and what is read when it is asked for, together with the daemon's own process.

    Figures begin at nought with the daemon: Prometheus knows resets.
    """

    def __init__(
        self,
        status: Callable[[], Status],
        gpus: Callable[[], GpuSnapshot | None],
        variants: Callable[[], Collection[str]],
        under_way: Callable[[], int],
        batches: Callable[[], BatchFigures],
    ) -> None:
        """See `Counts` for `variants`, `Gauges` for the rest."""
        self.counts = Counts(variants)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(Gauges(status, gpus, under_way, batches))
        self._registry.register(self.counts)
        ProcessCollector(registry=self._registry)

    def render(self, accept: str | None = None) -> tuple[bytes, str]:
        """Give the body and its content type: OpenMetrics for those whose `Accept` asks for it, else text."""
        encode, content_type = choose_encoder(accept or "")
        return encode(self._registry), content_type
