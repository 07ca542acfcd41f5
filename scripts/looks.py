"""Writes down how the screens look, cell by cell, for the tests that hold them to it: `make looks`.

A look is text: a row of the screen on each line, a mark like `{b}` where the colours change, and below what
each mark stands for. Whoever changes the look writes it anew, and sees in the difference what has changed.
"""

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

from rich.style import Style
from scripts.screenshots import LARGE, SCENES, SMALL, acting_daemon, opened, settle
from textual.app import App

from footplate_tui import theme

FOLDER = Path(__file__).parent.parent / "tests" / "tui" / "looks"
THEN = 1_760_011_200.0
"""When everything happened: long ago, so that no clock shows how long."""
MARKS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
TIMED = re.compile(r"thought for [0-9.]+ m?s([^{]*\{.\}) +")
"""What a run of the test itself takes."""


@dataclass(frozen=True)
class Case:
    """One screen at one size in one theme."""

    scene: str
    size: tuple[int, int]
    theme: str

    @property
    def name(self) -> str:
        """The name of its file."""
        shade = "dark" if self.theme == theme.DARK_NAME else "light"
        return f"{self.scene}-{self.size[0]}x{self.size[1]}-{shade}.txt"


ALWAYS_THE_SAME = (
    "chat",
    "switcher",
    "failure",
    "gauges",
    "logs",
    "history",
    "welcome",
    "help",
    "palette",
    "turn",
)
CASES = (
    *(Case(scene, size, theme.DARK_NAME) for scene in ALWAYS_THE_SAME for size in (SMALL, LARGE)),
    *(Case(scene, SMALL, theme.LIGHT_NAME) for scene in ("chat", "failure", "gauges")),
)


async def look(case: Case) -> str:
    """Play a scene and write down how it ends."""
    daemon = await acting_daemon(THEN)
    async with opened(daemon, case.size, case.theme) as pilot:
        await SCENES[case.scene](daemon, pilot)
        await settle(pilot)
        return written(pilot.app)


def written(app: App[None]) -> str:
    """Write down what is on the screen."""
    marks: dict[str, str] = {}
    rows = []
    for strip in app.screen._compositor.render_strips():  # noqa: SLF001 -- as in picture.py
        row, before = "", ""
        for text, style, control in strip:
            if control:
                continue
            mark = marks.setdefault(_described(style or Style.null()), MARKS[len(marks) % len(MARKS)])
            row += text if mark == before else f"{{{mark}}}{text}"
            before = mark
        rows.append(TIMED.sub(r"thought for 0 s\1 ", row).rstrip())
    legend = [f"{mark}  {described}" for described, mark in marks.items()]
    return "\n".join([*rows, "", *legend, ""])


def _described(style: Style) -> str:
    words = [name for name in ("bold", "dim", "italic", "underline", "reverse") if getattr(style, name)]
    colours = [colour.get_truecolor().hex if colour else "-" for colour in (style.color, style.bgcolor)]
    return " ".join([f"{colours[0]} on {colours[1]}", *words])


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for case in CASES:
        (FOLDER / case.name).write_text(asyncio.run(look(case)), encoding="utf-8")
        print(FOLDER / case.name)


if __name__ == "__main__":
    main()
