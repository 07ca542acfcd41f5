"""The statistics of a cell, from its requests. Pure.

Defined as `vllm bench serve` defines them: percentiles are linear as numpy's, the deviation is that of a
whole population, requests that failed are in no latency, throughputs are totals over the wall time.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from footplate_daemon.wire_benchmarks import Distribution, RequestRecord, Summary


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Give a percentile of ascending values, at least one, linear between its neighbours."""
    place = (len(ordered) - 1) * (percent / 100)
    below = math.floor(place)
    share = place - below
    if share == 0:
        return ordered[below]
    low, high = ordered[below], ordered[below + 1]
    # From the nearer end, as numpy does: so that the last bit agrees.
    return low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)


def distribution(values: Iterable[float]) -> Distribution | None:
    """Describe values; None where there is none."""
    ordered = sorted(values)
    if not ordered:
        return None
    mean = math.fsum(ordered) / len(ordered)
    return Distribution(
        count=len(ordered),
        mean=mean,
        std=math.sqrt(math.fsum((value - mean) ** 2 for value in ordered) / len(ordered)),
        minimum=ordered[0],
        median=percentile(ordered, 50),
        p90=percentile(ordered, 90),
        p95=percentile(ordered, 95),
        p99=percentile(ordered, 99),
        maximum=ordered[-1],
    )


def output_tokens(record: RequestRecord) -> int:
    """Give the tokens of an answer: by `usage`, else as counted here, else one for each event that came."""
    if record.output_tokens is not None:
        return record.output_tokens
    return record.counted_tokens if record.counted_tokens is not None else len(record.itl_ms) + 1


def tpot_ms(record: RequestRecord) -> float | None:
    """Give the time for each output token after the first; None for an answer of a single one."""
    tokens = output_tokens(record)
    if tokens <= 1 or record.e2el_ms is None or record.ttft_ms is None:
        return None
    return (record.e2el_ms - record.ttft_ms) / (tokens - 1)


def summarise(records: Sequence[RequestRecord], duration_seconds: float, *, disturbed_by: int = 0) -> Summary:
    """Summarise the requests of a cell that took so long."""
    good = [record for record in records if record.error_kind is None]
    tpots = [value for record in good if (value := tpot_ms(record)) is not None]
    tpot = distribution(tpots)
    prompt = sum(record.prompt_tokens or 0 for record in good)
    output = sum(output_tokens(record) for record in good)
    counted = _total(record.counted_tokens for record in good)
    checked = [record.is_valid for record in good if record.is_valid is not None]

    def per_second(total: float) -> float:
        return total / duration_seconds if duration_seconds > 0 else 0.0

    return Summary(
        requests=len(records),
        completed=len(good),
        failed=len(records) - len(good),
        errors=dict(Counter(record.error_kind for record in records if record.error_kind is not None)),
        duration_seconds=duration_seconds,
        prompt_tokens=prompt,
        output_tokens=output,
        cached_tokens=_total(record.cached_tokens for record in good),
        counted_tokens=counted,
        ttft=distribution(record.ttft_ms for record in good if record.ttft_ms is not None),
        tpot=tpot,
        itl=distribution(gap for record in good for gap in record.itl_ms),
        e2el=distribution(record.e2el_ms for record in good if record.e2el_ms is not None),
        output_tokens_per_second=per_second(output),
        counted_tokens_per_second=None if counted is None else per_second(counted),
        requests_per_second=per_second(len(good)),
        total_tokens_per_second=per_second(prompt + output),
        decode_tokens_per_second=1000 / tpot.median if tpot and tpot.median > 0 else None,
        valid=sum(checked) if checked else None,
        checked=len(checked) if checked else None,
        disturbed_by=disturbed_by,
    )


def _total(values: Iterable[int | None]) -> int | None:
    """Add up what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
