"""The gauges: what is drawn of each state, the screen and the chat's line against a fake daemon."""

from typing import Any

import pytest
from tests.fakes.daemon import FakeDaemon, engine, status
from tests.tui.conftest import Open, Terminal, text_of
from textual.content import Content

from footplate_daemon import wire
from footplate_tui.gauge_line import Steady, compact
from footplate_tui.gauge_words import energy, facts, gpu_holders, memory_share, ram_holders, share
from footplate_tui.gauges import Room, fitting, gpu_card, gpu_height, machine_card
from footplate_tui.past import CPU, USE, Past, step_seconds
from footplate_tui.screens.gauges import GaugesScreen
from footplate_tui.sparkline import sparkline
from footplate_tui.widgets.gauge_lines import GaugeLines
from footplate_tui.widgets.header import Header
from footplate_tui.widgets.status_line import StatusLine

GB = 10**9
NO_DRIVER = "This machine has no NVIDIA driver (libnvidia-ml.so.1 was not found)."
ROOM = Room(width=76, rows=2, processes=4)
ENGINES = {"vllm-qwen3-8b": engine("vllm/qwen3-8b", memory_bytes=11 * GB)}
PROCESSES = (
    wire.GpuProcess(pid=48123, name="vllm", owner="driver", memory_bytes=11 * GB, engine="vllm-qwen3-8b"),
    wire.GpuProcess(pid=51999, name="python train.py", owner="anna", memory_bytes=5 * GB),
)


def gpu(index: int = 0, **told: Any) -> wire.Sample:
    """A GPU that tells everything and works hard."""
    usual: dict[str, Any] = {
        "uuid": f"GPU-{index}",
        "name": "NVIDIA H200",
        "utilisation_percent": 93,
        "memory_total_bytes": 24 * GB,
        "memory_used_bytes": 18 * GB,
        "memory_free_bytes": 5 * GB,
        "temperature_celsius": 71,
        "temperature_limit_celsius": 90,
        "power_watts": 315.4,
        "power_limit_watts": 450,
        "energy_joules": 4.3e6,
        "sm_clock_mhz": 2475,
        "sm_clock_limit_mhz": 3105,
        "memory_clock_mhz": 10251,
        "pcie_generation": 4,
        "pcie_lanes": 16,
        "pcie_rx_bytes_per_second": 1_200_000,
        "pcie_tx_bytes_per_second": 300_000,
        "throttle_reasons": (),
        "fan_percent": 45,
        "processes": PROCESSES,
    }
    return wire.Sample(index=index, **(usual | told))


LOST = wire.Sample(index=0, uuid="GPU-0", name="NVIDIA H200", problem="The GPU is lost.")


def snapshot(*gpus: wire.Sample, at: float = 1000.0, **told: Any) -> wire.GpuSnapshot:
    usual: dict[str, Any] = {
        "problem": None if gpus else NO_DRIVER,
        "cpu_percent": 34.2,
        "ram_total_bytes": 64 * GB,
        "ram_used_bytes": 28 * GB,
    }
    return wire.GpuSnapshot(at=at, gpus=gpus, **(usual | told))


def text(lines: list[Content]) -> str:
    return "\n".join(line.plain for line in lines)


def card(sample: wire.Sample, room: Room = ROOM, past: Past | None = None) -> str:
    lines = gpu_card(sample, past or Past(), ENGINES, room)
    assert len(lines) == gpu_height(sample, room)
    assert all(line.cell_length <= room.width for line in lines)
    return text(lines)


def colour_of(lines: list[Content], words: str) -> str:
    """The colour in which words are drawn."""
    line = next(line for line in lines if words in line.plain)
    place = line.plain.index(words)
    return str(next(span.style for span in line.spans if span.start <= place < span.end))


# --- A GPU ---------------------------------------------------------------------------------------------


def test_a_card_has_everything_that_the_gpu_tells() -> None:
    drawn = card(gpu())

    for told in (
        "GPU 0  NVIDIA H200",
        "93%",
        "18.0 of 24.0 GB · 5.0 free",
        "71 of 90 °C",
        "315 of 450 W",
        "clock 2,475 of 3,105 MHz",
        "memory clock 10,251 MHz",
        "PCIe gen 4 x16 ↓ 1.2 MB/s ↑ 300 KB/s",
        "fan 45%",
        "energy 1.19 kWh",
        "■ 48123    driver      vllm/qwen3-8b",
        "□ 51999    anna        python train.py",
    ):
        assert told in drawn


def test_what_a_gpu_does_not_tell_is_a_dash_and_never_zero() -> None:
    drawn = card(wire.Sample(index=0, uuid="GPU-0", name="GPU"))

    assert "0%" not in drawn
    assert [
        line.split()[1] for line in drawn.splitlines() if line.startswith(("use", "memory", "power"))
    ] == ["-"] * 3
    assert "MHz" not in drawn


def test_the_memory_bar_is_divided_by_who_holds_it_and_reads_without_colours() -> None:
    bar = card(gpu()).splitlines()[4][: ROOM.left]

    assert bar == "━" * 16 + "╍" * 8 + "┄" * 3 + "─" * 9
    assert [(holder.name, holder.memory_bytes) for holder in gpu_holders(gpu(), ENGINES)] == [
        ("vllm/qwen3-8b", 11 * GB),
        ("anna", 5 * GB),
        ("everything else", 2 * GB),
    ]


def test_a_full_bar_is_never_longer_than_its_room() -> None:
    crowd = tuple(
        wire.GpuProcess(pid=pid, name="a", owner=f"user{pid}", memory_bytes=3 * GB) for pid in range(40)
    )

    for rows in (1, 2, 6):
        card(gpu(processes=crowd, utilisation_percent=250), Room(60, rows, 3))


def test_what_slows_a_gpu_down_is_said_in_words_and_colours_the_worst_first() -> None:
    lines = gpu_card(
        gpu(throttle_reasons=("clocks set by a user", "power cap", "heat"), temperature_celsius=91),
        Past(),
        ENGINES,
        ROOM,
    )

    assert lines[0].plain.endswith("▼ slowed by heat, power cap, clocks set by a user")
    assert colour_of(lines, "heat,") == "$error"
    assert colour_of(lines, "power cap") == "$warning"
    assert colour_of(lines, "clocks set") == "$muted"


@pytest.mark.parametrize(("celsius", "colour"), [(60, "$success"), (85, "$warning"), (90, "$error")])
def test_heat_is_coloured_by_how_near_the_limit_is(celsius: float, colour: str) -> None:
    lines = gpu_card(gpu(temperature_celsius=celsius), Past(), ENGINES, ROOM)
    bar = lines[lines.index(next(line for line in lines if line.plain.startswith("heat"))) + 1]

    assert str(bar.spans[0].style) == colour


def test_a_lost_gpu_says_so_and_keeps_its_past() -> None:
    past = Past()
    past.add(snapshot(gpu(), at=1000))
    past.add(snapshot(LOST, at=1001))

    drawn = card(LOST, past=past)

    assert "✗ The GPU is lost." in drawn
    assert all(any(dot > "⠀" for dot in line[ROOM.left + 2 :]) for line in drawn.splitlines()[3:10:2])


def test_a_gpu_that_is_back_says_so_and_is_drawn() -> None:
    drawn = card(gpu(problem="The GPU was lost for 12 s and is back."))

    assert "▲ The GPU was lost for 12 s and is back." in drawn
    assert "93%" in drawn


def test_more_processes_than_fit_are_counted() -> None:
    crowd = tuple(wire.GpuProcess(pid=pid, name="a", owner="anna", memory_bytes=GB) for pid in range(1, 11))

    assert "and 7 more with 7.0 GB" in card(gpu(processes=crowd))
    assert "more" not in card(gpu(processes=crowd[:4]))


def test_a_program_cannot_command_the_terminal_by_its_name() -> None:
    hostile = wire.GpuProcess(pid=1, name="\x1b[2Jevil", owner="\x1b]52;c;x\x07", memory_bytes=GB)

    drawn = card(gpu(name="\x1b[2JGPU", processes=(hostile,)))

    assert "\x1b" not in drawn
    assert "\x07" not in drawn


def test_with_room_the_facts_and_the_holders_stand_beside_the_gauges() -> None:
    drawn = card(gpu(), Room(156, 6, 12))

    lines = drawn.splitlines()
    assert lines[3].startswith("clock 2,475 of 3,105 MHz ")
    assert lines[9].startswith("■ vllm/qwen3-8b ")
    assert lines[10].startswith("□ anna ")


# --- How much there is room for --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "width", "height", "columns", "rows"),
    [(1, 76, 22, 1, 2), (1, 156, 44, 1, 6), (8, 156, 44, 2, 1), (8, 76, 22, 1, 1), (2, 196, 56, 2, 8)],
)
def test_the_gauges_are_as_tall_as_fits(count: int, width: int, height: int, columns: int, rows: int) -> None:
    found, room = fitting([gpu(index) for index in range(count)], width, height)

    assert (found, room.rows) == (columns, rows)


def test_a_list_of_processes_goes_before_high_gauges() -> None:
    crowd = tuple(wire.GpuProcess(pid=pid, name="a", owner="anna", memory_bytes=GB) for pid in range(1, 11))

    _, room = fitting([gpu(processes=crowd)], 156, 36)

    assert room.processes >= len(crowd)


def test_one_gpu_is_whole_on_a_screen_of_80_by_24() -> None:
    _, room = fitting([gpu()], 76, 22)
    machine = Room(76, room.rows, 0)

    lines = gpu_height(gpu(), room) + 1 + len(machine_card(snapshot(gpu()), Past(), ENGINES, machine))

    assert lines <= 22
    assert room.processes >= len(PROCESSES)


# --- The machine -----------------------------------------------------------------------------------------


def test_with_a_gpu_the_ram_is_not_ascribed_to_engines_whose_memory_is_the_gpus() -> None:
    assert [holder.name for holder in ram_holders(snapshot(gpu()), ENGINES)] == ["everything else"]


def test_without_a_gpu_the_ram_of_our_engines_is_shown() -> None:
    lines = machine_card(snapshot(), Past(), ENGINES, ROOM)

    assert "28.0 of 64.0 GB" in text(lines)
    assert "■ vllm/qwen3-8b" in text(lines)
    assert "11.0 GB" in text(lines)


# --- The past --------------------------------------------------------------------------------------------


def test_a_sparkline_has_a_fixed_scale_and_a_dot_for_what_is_there() -> None:
    assert sparkline([0.0, 0.25, 0.5, 1.0], 2, 1) == ["⣀⣼"]
    assert sparkline([None, None, 1.0, 1.0], 2, 2) == [" ⣿", " ⣿"]
    assert sparkline([1.0], 1, 1) == ["⢸"]
    assert sparkline([9.0, -1.0], 1, 1) == ["⣇"]
    assert sparkline([], 0, 1) == [""]


def test_the_past_begins_with_what_the_daemon_remembers() -> None:
    past = Past()
    past.add(snapshot(gpu(utilisation_percent=90), at=104, cpu_percent=9))
    trace = wire.GpuTrace(
        index=0,
        uuid="GPU-0",
        utilisation_percent=(10, 20, None, 99),
        memory_used_bytes=(None,) * 4,
        temperature_celsius=(None,) * 4,
        power_watts=(None,) * 4,
    )
    past.fill(
        wire.GpuHistory(
            at=(101, 102, 103, 104), gpus=(trace,), cpu_percent=(1, 2, 3, 4), ram_used_bytes=(5,) * 4
        )
    )

    assert past.steps(("GPU-0", USE), 5, 1) == [None, 10, 20, 20, 90]
    assert past.steps(CPU, 4, 1) == [1, 2, 3, 9]
    assert past.steps(CPU, 2, 2) == [2.5, 9]


def test_the_last_value_stands_for_a_short_gap_and_not_for_a_long_one() -> None:
    past = Past()
    for at in (100, 105, 140):
        past.add(snapshot(at=at, cpu_percent=at))

    steps = past.steps(CPU, 41, 1)

    assert steps[:6] == [100, 100, 100, 100, 100, 105]
    assert steps[6:40] == [None] * 34


def test_what_is_past_stands_still_in_its_step() -> None:
    past = Past()
    for at in range(100, 120):
        past.add(snapshot(at=at, cpu_percent=at))
    before = past.steps(CPU, 4, 5)

    past.add(snapshot(at=120, cpu_percent=120))

    assert past.steps(CPU, 4, 5)[:-1] == before[1:]


def test_a_clock_that_was_set_back_begins_anew() -> None:
    past = Past()
    past.add(snapshot(at=5000, cpu_percent=1))
    past.add(snapshot(at=100, cpu_percent=2))

    assert past.steps(CPU, 2, 1) == [None, 2]


def test_steps_are_whole_seconds_and_go_back_minutes() -> None:
    assert [step_seconds(dots) for dots in (72, 200, 600)] == [5, 2, 1]


# --- Words -----------------------------------------------------------------------------------------------


def test_figures_read_as_one_says_them() -> None:
    assert memory_share(500_000_000, 24 * GB) == "0.5 of 24.0 GB"
    assert share(None, 450, " W") == "-"
    assert share(315.4, None, " W") == "315 W"
    assert energy(126_000) == "35 Wh"
    assert facts(wire.Sample(index=0, name="GPU")).told == []


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (snapshot(gpu()), "GPU 93% 18.0/24.0 GB 71°"),
        (snapshot(gpu(throttle_reasons=("heat",))), "GPU 93% 18.0/24.0 GB 71° ▼"),
        (snapshot(gpu(throttle_reasons=("display clocks",))), "GPU 93% 18.0/24.0 GB 71°"),
        (snapshot(LOST), "GPU lost"),
        (snapshot(LOST, gpu(1)), "2 GPUs 93% 18.0/24.0 GB 71° 1 lost"),
        (
            snapshot(*(gpu(place, utilisation_percent=place * 14) for place in range(8))),
            "8 GPUs ▁▂▃▄▅▆▇█ 144/192 GB 71°",
        ),
        (snapshot(), "CPU 34% RAM 28.0/64.0 GB"),
        (None, ""),
    ],
)
def test_the_chat_has_the_gauges_in_a_few_words(shown: wire.GpuSnapshot | None, expected: str) -> None:
    assert compact(shown, Steady()).plain == expected


def test_figures_that_only_jitter_stay_as_they_are() -> None:
    steady = Steady()
    first = compact(snapshot(cpu_percent=3, ram_used_bytes=28 * GB), steady)

    assert compact(snapshot(cpu_percent=6, ram_used_bytes=28 * GB + GB // 3), steady).plain == first.plain
    assert compact(snapshot(cpu_percent=40), steady).plain == "CPU 40% RAM 28.0/64.0 GB"


# --- The screen ------------------------------------------------------------------------------------------


def gauges_shown(terminal: Terminal) -> str:
    screen = terminal.app.screen
    if not isinstance(screen, GaugesScreen):
        return ""
    said = [text_of(widget) for widget in screen.query(".said") if widget.display]
    return "\n".join([*said, *(widget.plain for widget in screen.query(GaugeLines))])


def status_line(terminal: Terminal) -> str:
    return str(terminal.screen.query_one(StatusLine).render())


@pytest.fixture
def daemon() -> FakeDaemon:
    daemon = FakeDaemon()
    daemon.now_status = status(model="qwen3-8b", runtime="vllm")
    daemon.gauges = snapshot(gpu())
    return daemon


async def test_the_chat_shows_the_gauges_and_a_key_opens_and_closes_them(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until(lambda: "GPU 93% 18.0/24.0 GB 71°" in status_line(terminal))
        await terminal.pilot.press("f4")
        await terminal.until(lambda: "NVIDIA H200" in gauges_shown(terminal))
        assert "vllm/qwen3-8b" in gauges_shown(terminal)
        assert "Gauges" in str(terminal.app.screen.query_one(Header).render())
        await terminal.pilot.press("f4")

        await terminal.until(lambda: terminal.screen.is_active)

        await terminal.pilot.press("f4", "escape")
        await terminal.until(lambda: terminal.screen.is_active)


async def test_a_notice_stands_before_the_gauges_and_both_fit(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.until(lambda: "GPU 93%" in status_line(terminal))
        terminal.screen.notice = "Something happened."
        await terminal.until(lambda: "Something happened.   GPU 93%" in status_line(terminal))
        terminal.screen.notice = "Something happened that takes a whole line to tell, " + "or more " * 4

        await terminal.until(lambda: "a whole line" in status_line(terminal))

        assert "GPU" not in status_line(terminal)


async def test_the_screen_begins_with_the_minutes_before(daemon: FakeDaemon, open_terminal: Open) -> None:
    daemon.remembered = wire.GpuHistory(
        at=tuple(range(800, 1000)), cpu_percent=(100,) * 200, ram_used_bytes=(GB,) * 200
    )
    async with open_terminal(daemon) as terminal:
        await terminal.pilot.press("f4")

        await terminal.until(lambda: "⣿" * 15 in gauges_shown(terminal))


async def test_it_follows_what_happens(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.pilot.press("f4")
        await terminal.until(lambda: "93%" in gauges_shown(terminal))
        await daemon.read_gauges(snapshot(gpu(throttle_reasons=("power cap",)), at=1001))
        await terminal.until(lambda: "slowed by power cap" in gauges_shown(terminal))
        await daemon.read_gauges(snapshot(LOST, at=1002, problem="The driver is gone."))
        await terminal.until(lambda: "✗ The GPU is lost." in gauges_shown(terminal))
        assert "The driver is gone." not in gauges_shown(terminal)
        back = gpu(problem="The GPU was lost for 1 s and is back.", utilisation_percent=12)
        await daemon.read_gauges(snapshot(back, gpu(1), at=1003))

        await terminal.until(lambda: "is back" in gauges_shown(terminal))

        assert "GPU 1" in gauges_shown(terminal)
        await daemon.read_gauges(snapshot(gpu(), at=1004))
        await terminal.until(lambda: "GPU 1" not in gauges_shown(terminal))


async def test_without_a_gpu_one_line_says_so(daemon: FakeDaemon, open_terminal: Open) -> None:
    daemon.gauges = snapshot()
    async with open_terminal(daemon) as terminal:
        await terminal.pilot.press("f4")

        await terminal.until(lambda: f"○ {NO_DRIVER}" in gauges_shown(terminal))

        assert "CPU     34%" in gauges_shown(terminal)
        assert "28.0 of 64.0 GB" in gauges_shown(terminal)


async def test_a_daemon_that_goes_is_said_and_the_last_figures_stay(
    daemon: FakeDaemon, open_terminal: Open
) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.pilot.press("f4")
        await terminal.until(lambda: "93%" in gauges_shown(terminal))
        await daemon.go_down()
        await terminal.until(lambda: "The daemon does not answer" in gauges_shown(terminal))
        assert "93%" in gauges_shown(terminal)
        await terminal.until(lambda: terminal.app.gauges is None)
        daemon.gauges = snapshot(gpu(utilisation_percent=7), at=1010)
        await daemon.come_back()

        await terminal.until(lambda: " 7%" in gauges_shown(terminal))

        assert "does not answer" not in gauges_shown(terminal)


async def test_without_a_daemon_it_says_how_to_start_one(daemon: FakeDaemon, open_terminal: Open) -> None:
    await daemon.go_down()
    async with open_terminal(daemon) as terminal:
        await terminal.until(lambda: not terminal.screen.is_connected)
        await terminal.pilot.press("f4")

        await terminal.until(lambda: "footplate up" in gauges_shown(terminal))


@pytest.mark.parametrize("size", [(80, 24), (160, 48), (200, 60), (60, 16), (40, 10)])
async def test_eight_gpus_can_all_be_reached_at_any_size(
    size: tuple[int, int], daemon: FakeDaemon, open_terminal: Open
) -> None:
    daemon.gauges = snapshot(*map(gpu, range(8)))
    async with open_terminal(daemon, size=size) as terminal:
        await terminal.pilot.press("f4")
        await terminal.until(lambda: "GPU 7" in gauges_shown(terminal))
        await terminal.pilot.press("end")

        await terminal.until(lambda: "This machine" in visible(terminal))


async def test_only_rows_that_differ_are_painted(daemon: FakeDaemon, open_terminal: Open) -> None:
    async with open_terminal(daemon) as terminal:
        await terminal.pilot.press("f4")
        await terminal.until(lambda: "93%" in gauges_shown(terminal))
        await terminal.pilot.pause()
        card = terminal.app.screen.query(GaugeLines).first()
        painted: list[int] = []
        paint = card.render_line

        def noted(y: int) -> Any:
            painted.append(y)
            return paint(y)

        async def painted_no_more() -> bool:
            painted.clear()
            await terminal.pilot.pause()
            return painted == []

        card.render_line = noted  # type: ignore[method-assign]  # to see what is painted
        while not await painted_no_more():  # Its first rows may still be on their way.
            pass
        card.show([*card.lines])
        assert await painted_no_more()
        card.show([*card.lines[:3], Content("new"), *card.lines[4:]])

        await terminal.until(lambda: set(painted) == {3})


def visible(terminal: Terminal) -> str:
    """What can be seen on the screen."""
    return "\n".join(
        "".join(segment.text for segment in strip)
        for strip in terminal.app.screen._compositor.render_strips()
    )
