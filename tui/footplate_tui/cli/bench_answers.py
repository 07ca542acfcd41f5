"""The answers of several entrants in columns, side by side, with the place where they first differ."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from footplate_tui.benchmarks.agreement import Answer, Asked
from footplate_tui.format import count
from footplate_tui.harmless import harmless, one_line


def write(asked: Sequence[Asked], console: Console) -> None:
    """Write each prompt with its answers, and at the end how many of them are equal."""
    if not asked:
        console.print("No answers: none were kept, or none is as you ask.", markup=False)
        return
    for each in asked:
        console.print(Text(f"{each.square}, request {each.number}: ", style="bold"), end="")
        console.print(Text(one_line(each.prompt)))
        console.print(_columns(each))
    comparable = [each for each in asked if each.is_comparable]
    equal = sum(each.is_equal for each in comparable)
    console.print(f"{equal} of {count(len(comparable), 'prompt')} answered alike.", markup=False)


def _columns(asked: Asked) -> Table:
    shown = Table(expand=True, show_edge=False, pad_edge=False)
    for answer in asked.answers:
        shown.add_column(Text(_title(answer)), ratio=1, overflow="fold")
    shown.add_row(*(_text(answer) for answer in asked.answers))
    return shown


def _title(answer: Answer) -> str:
    if answer.difference is None:
        return answer.name
    return f"{answer.name}: differs after {count(answer.difference.at, 'character')}"


def _text(answer: Answer) -> Text:
    if answer.text is None:
        return Text(one_line(answer.error or "not kept"), style="dim")
    if answer.difference is None:
        return Text(harmless(answer.text))
    at = answer.difference.at
    return Text.assemble(
        harmless(answer.text[:at]), (harmless(answer.text[at:]) or "(it ends here)", "bold yellow")
    )
