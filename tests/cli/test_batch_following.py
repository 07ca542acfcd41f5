"""A batch that is watched, over as many connections as it takes."""

import io
from collections.abc import AsyncIterator, Sequence

import pytest
from rich.console import Console

from footplate_daemon.errors import DaemonUnreachable, FootplateError, NotFound
from footplate_daemon.wire_batches import BatchProgress, BatchStatus, BatchWaiting, WaitsFor
from footplate_tui.cli.batch_following import AWAY, LONGEST_ABSENCE, Lines, Nowhere, drawing, follow
from tests.cli.batch_values import ID, batch, progress

CUT = DaemonUnreachable("The connection was cut.")
BEGUN = progress(batch(total=100, completed=5))
ENDED = progress(batch(BatchStatus.COMPLETED, total=100, completed=100))
QUIET = BatchWaiting(reason=WaitsFor.QUIET_TIME, message="Somebody chatted.")


class Connections:
    """Tells on each connection what the test says, and then refuses."""

    def __init__(self, *connections: Sequence[BatchProgress | FootplateError]) -> None:
        self.left = list(connections)

    async def follow_batch(self, batch_id: str) -> AsyncIterator[BatchProgress]:
        assert batch_id == ID
        if not self.left:
            raise CUT
        for told in self.left.pop(0):
            if isinstance(told, FootplateError):
                raise told
            yield told


class Pauses:
    """Counts the pauses, and takes no time for them."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


async def test_a_daemon_that_comes_back_is_followed_again() -> None:
    pauses = Pauses()
    daemon = Connections([BEGUN, CUT], [CUT], [BEGUN], [BEGUN, ENDED])

    assert await follow(daemon, ID, Nowhere(), pause=pauses) is ENDED
    assert pauses.seconds == [0.2, 0.4, 0.2]


async def test_a_daemon_that_stays_away_is_given_up() -> None:
    pauses = Pauses()

    with pytest.raises(DaemonUnreachable):
        await follow(Connections([BEGUN]), ID, Nowhere(), pause=pauses)

    assert len(pauses.seconds) == LONGEST_ABSENCE


@pytest.mark.parametrize("error", [CUT, NotFound("No such batch.")])
async def test_what_was_never_there_is_not_waited_for(error: FootplateError) -> None:
    pauses = Pauses()

    with pytest.raises(type(error)):
        await follow(Connections([error]), ID, Nowhere(), pause=pauses)

    assert pauses.seconds == []


async def test_a_daemon_that_has_just_taken_the_batch_is_waited_for() -> None:
    assert await follow(Connections([CUT], [ENDED]), ID, Nowhere(), is_there=True, pause=Pauses()) is ENDED


async def test_a_pipe_gets_a_line_for_what_matters(capsys: pytest.CaptureFixture[str]) -> None:
    daemon = Connections(
        [
            progress(batch(BatchStatus.VALIDATING)),
            BEGUN,
            progress(batch(total=100, completed=6), waiting=QUIET),
            progress(batch(total=100, completed=7)),
            CUT,
        ],
        [progress(batch(total=100, completed=20)), ENDED],
    )

    await follow(daemon, ID, Lines(), pause=Pauses())

    assert capsys.readouterr().out.splitlines() == [
        "validating",
        "in progress · 5 of 100 lines",
        "in progress · 6 of 100 lines",
        "  waits for quiet time: Somebody chatted.",
        AWAY,
        "in progress · 20 of 100 lines",
    ]


@pytest.mark.parametrize(
    ("told", "is_away", "below"),
    [
        (
            progress(batch(total=100), lines_per_second=3.2, eta_seconds=31.0, in_flight=3, concurrency=8),
            False,
            "3.2 lines/s · about 31 s left · 3 of 8 at a time",
        ),
        (progress(batch(total=100), concurrency=8, retries=2), False, "0 of 8 at a time · 2 asked again"),
        (progress(batch(total=100), waiting=QUIET), False, "waits for quiet time: Somebody chatted."),
        (BEGUN, True, AWAY),
    ],
)
def test_a_terminal_gets_a_bar_and_under_it_why_it_stands(
    told: BatchProgress, is_away: bool, below: str
) -> None:
    paper = io.StringIO()

    Console(file=paper, width=70).print(drawing(told, is_away=is_away))

    first, second = paper.getvalue().splitlines()
    assert first.startswith("in progress ")
    assert " of 100 lines" in first
    assert second.strip() == below
