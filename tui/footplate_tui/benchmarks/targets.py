"""What `footplate check` demands: a TOML file, a table for each target. What has no table is not checked."""

import tomllib
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from footplate_daemon import mistakes, toml_lines
from footplate_daemon.errors import Invalid
from footplate_daemon.mistakes import Mistake

Statistic = Literal["median", "mean", "p90", "p95", "p99", "maximum"]


class Table(BaseModel):
    """A table of the file: frozen; a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FirstToken(Table):
    """How soon an answer begins, by the workload `short`."""

    max_ms: float = Field(default=500.0, gt=0)
    statistic: Statistic = "median"


class Stream(Table):
    """How fast one answer comes, by the workload `short`."""

    min_tokens_per_second: float = Field(default=50.0, gt=0)


class Latency(Table):
    """How soon an answer has ended, by the workload `short`."""

    max_ms: float = Field(default=1000.0, gt=0)
    statistic: Statistic = "median"


class Memory(Table):
    """What the engine takes, over everything that it is asked."""

    max_vram_gb: float | None = Field(default=5.0, gt=0)
    """None, as with the others: not checked. 1 GB is 1,000,000,000 bytes."""
    max_vram_growth_percent: float | None = Field(default=5.0, ge=0)
    """From before the first request to after the last: whether it is stable."""
    max_ram_gb: float | None = Field(default=None, gt=0)
    max_ram_growth_percent: float | None = Field(default=None, ge=0)


class Json(Table):
    """How many answers are JSON of the schema that was asked for, by the workload `json-router`."""

    min_valid_percent: float = Field(default=100.0, ge=0, le=100)
    requests: int = Field(default=10, ge=1, le=1000)


class Determinism(Table):
    """How many answers to one prompt, at temperature 0 with a seed, are the same: the workload `repeat`."""

    min_identical_percent: float = Field(default=100.0, ge=0, le=100)
    requests: int = Field(default=10, ge=2, le=1000)


class LongPrompt(Table):
    """How many prompts near the end of the context are answered, by the workload `long-prompt`."""

    min_answered_percent: float = Field(default=100.0, ge=0, le=100)
    requests: int = Field(default=3, ge=1, le=100)


class Agreement(Table):
    """How many answers are equal to those of the same model on the first runtime, by `short` and `repeat`."""

    min_equal_percent: float = Field(default=100.0, ge=0, le=100)


class Targets(Table):
    """Everything that is demanded."""

    json_: Json | None = Field(default=None, alias="json")
    determinism: Determinism | None = None
    first_token: FirstToken | None = None
    stream: Stream | None = None
    latency: Latency | None = None
    memory: Memory | None = None
    long_prompt: LongPrompt | None = None
    agreement: Agreement | None = None
    requests: int = Field(default=10, ge=1, le=1000)
    """Of the workload `short`."""
    seed: int = Field(default=42, ge=0, le=2**31 - 1)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is demanded."""
        return not any(isinstance(each, Table) for each in dict(self).values())


def shipped() -> str:
    """Give the text of the targets that hold where no file is given."""
    return resources.files(__package__).joinpath("targets.toml").read_text()


def load(file: Path | None) -> Targets:
    """Read targets, or those that are shipped; raise `Invalid` with every mistake and its line."""
    if file is None:
        return parse(shipped(), "targets.toml")
    try:
        text = file.read_text()
    except FileNotFoundError as error:
        hint = "Begin with ours: footplate check --print-targets > targets.toml"
        raise Invalid(f"There is no file {file}.", hint=hint) from error
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{file} cannot be read: {error}.") from error
    return parse(text, str(file))


def parse(text: str, name: str) -> Targets:
    """Take a text apart; raise `Invalid` with every mistake and its line."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _invalid(name, [mistakes.of_syntax(text, str(error))]) from error
    try:
        targets = Targets.model_validate(data)
    except ValidationError as error:
        found = mistakes.of_shape(error.errors(), data, toml_lines.locate(text), Targets)
        raise _invalid(name, found) from error
    if targets.is_empty:
        nothing = Mistake(1, "", "Nothing is demanded.", "Add a table, for example [first_token].")
        raise _invalid(name, [nothing])
    return targets


def _invalid(name: str, found: list[Mistake]) -> Invalid:
    found = sorted(found, key=lambda mistake: (mistake.line, mistake.key))
    many = "1 mistake" if len(found) == 1 else f"{len(found)} mistakes"
    return Invalid(
        "\n".join([f"{name} has {many}:", *(f"  {mistake}" for mistake in found)]),
        hint="What may stand there: footplate check --print-targets",
        details={"file": name, "mistakes": [asdict(mistake) for mistake in found]},
    )
