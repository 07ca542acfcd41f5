"""How figures of benchmarks read, on screen and on paper. Pure."""

from footplate_tui.benchmarks.bootstrap import Estimate
from footplate_tui.benchmarks.comparison import certain_change, improvement
from footplate_tui.benchmarks.measures import Measure
from footplate_tui.format import duration, rate

NONE = "-"


def milliseconds(amount: float | None) -> str:
    """Give a time with three figures: `6.13 ms`, `61.3 ms`, `613 ms`, `1.23 s`, `61.3 s`."""
    if amount is None:
        return NONE
    if amount >= 999.5:
        return _three(amount / 1000, "s")
    return _three(amount, "ms")


def axis(amount: float) -> str:
    """Give a number beside an axis, as short as it can be: `0`, `0.5`, `20`, `1,500`."""
    return f"{amount:,.0f}" if amount >= 10 or amount == round(amount) else f"{amount:g}"


def axis_time(milliseconds_: float) -> str:
    """Give a time beside an axis: `0`, `20 ms`, `1.5 s`."""
    if milliseconds_ == 0:
        return "0"
    return f"{milliseconds_ / 1000:g} s" if milliseconds_ >= 1000 else f"{milliseconds_:g} ms"


def axis_clock(amount: float) -> str:
    """Give a time in seconds beside an axis: `0`, `15 s`, `2 min`, `1 h`."""
    for unit, name in ((3600, "h"), (60, "min")):
        if amount and amount % unit == 0:
            return f"{amount / unit:g} {name}"
    return f"{amount:g} s" if amount else "0"


def seconds(amount: float | None) -> str:
    """Give a time that is known in seconds: as `milliseconds`, and `4 min 04 s`."""
    if amount is None:
        return NONE
    return duration(amount) if amount >= 100 else milliseconds(amount * 1000)


def memory(byte_count: float | None) -> str:
    """Give a size of memory: `61.3 MB`, `4.20 GB` (powers of 1000)."""
    if byte_count is None:
        return NONE
    return _three(byte_count / 1e9, "GB") if byte_count >= 999.5e6 else _three(byte_count / 1e6, "MB")


def percent(share: float | None) -> str:
    """Give a share: `100 %`, `66.7 %`."""
    if share is None:
        return NONE
    return f"{share * 100:.0f} %" if share in {0.0, 1.0} else f"{share * 100:.1f} %"


def value(measure: Measure, amount: float | None) -> str:
    """Give a measure in its unit."""
    if amount is None:
        return NONE
    return rate(amount) if measure in {Measure.STREAM, Measure.THROUGHPUT} else milliseconds(amount)


def interval(measure: Measure, figure: Estimate | None) -> str:
    """Give a measure with the interval that it lies in: `6.13 ms (5.9 to 6.4)`."""
    if figure is None:
        return NONE
    if figure.low is None or figure.high is None:
        return value(measure, figure.value)
    # The ends are told in the unit of the figure.
    unit = 1000 if measure.is_better_lower and figure.value >= 999.5 else 1
    low, high = figure.low / unit, figure.high / unit
    return f"{value(measure, figure.value)} ({_plain(low)} to {_plain(high)})"


def change(measure: Measure, ratio: Estimate | None) -> str:
    """Say how a figure compares with its base: `2.4 times better`, `perhaps 12 % worse`, `equal`."""
    if ratio is None:
        return NONE
    better = improvement(ratio, measure)
    words = times(better)
    if certain_change(ratio) or words == "equal":
        return words
    return f"perhaps {words}"


def times(better: float) -> str:
    """Say how much better: `2.4 times better`, `12 % worse`, `equal`."""
    word = "better" if better >= 1 else "worse"
    much = better if better >= 1 else 1 / better
    if much >= 1.995:
        return f"{much:.1f} times {word}"
    share = f"{(much - 1) * 100:.0f}"
    return "equal" if share == "0" else f"{share} % {word}"


def _three(amount: float, unit: str) -> str:
    return f"{_plain(amount)} {unit}"


def _plain(amount: float) -> str:
    if amount < 9.995:
        return f"{amount:.2f}"
    if amount < 99.95:
        return f"{amount:.1f}"
    return f"{amount:,.0f}"
