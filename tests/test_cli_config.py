"""`footplate config`: checked without a daemon."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from footplate_daemon import settings
from footplate_tui.cli.config import config


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    file = tmp_path / "config" / "config.toml"
    file.parent.mkdir()
    file.write_text("[gateway]\nqueue_limt = 1\nauto_switch = 2\n[switching]\npolicy = 'all'\n")
    return file


def test_every_mistake_is_printed_and_the_exit_code_is_1(wrong: Path) -> None:
    ran = CliRunner().invoke(config, ["check", str(wrong)])

    assert ran.exit_code == 1
    assert [line.split(":")[0] for line in ran.output.splitlines()[1:]] == [
        "  line 2",
        "  line 3",
        "  line 5",
    ]


def test_programs_get_the_mistakes_as_json(wrong: Path) -> None:
    ran = CliRunner().invoke(config, ["check", "--json"], env={"FOOTPLATE_HOME": str(wrong.parents[1])})

    told = json.loads(ran.output)
    assert ran.exit_code == 1
    assert (told["ok"], told["file"]) == (False, str(wrong))
    assert [mistake["key"] for mistake in told["mistakes"]] == [
        "gateway.queue_limt",
        "gateway.auto_switch",
        "switching.policy",
    ]


def test_a_right_file_and_no_file_are_fine(tmp_path: Path) -> None:
    right = tmp_path / "right.toml"
    right.write_text("[gateway]\nqueue_limit = 1\n")

    checked = CliRunner().invoke(config, ["check", str(right)])
    without = CliRunner().invoke(config, ["check"], env={"FOOTPLATE_HOME": str(tmp_path)})

    assert (checked.exit_code, checked.output) == (0, f"{right} has no mistakes.\n")
    assert without.exit_code == 0
    assert "the defaults hold" in without.output


def test_the_path_is_printed(tmp_path: Path) -> None:
    ran = CliRunner().invoke(config, ["path"], env={"FOOTPLATE_HOME": str(tmp_path)})

    assert ran.output == f"{tmp_path}/config/config.toml\n"


def test_the_schema_is_printed() -> None:
    ran = CliRunner().invoke(config, ["schema"])

    assert json.loads(ran.output) == settings.json_schema()
