"""Where our daemon spends its time under load, as py-spy sees it: shares of the samples taken."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import uvloop
from bench.box import Figures, say
from bench.gateway.load import Question, Target, drive, for_seconds
from bench.gateway.measures import JSON, JSON_CONNECTIONS, PACED, PACED_STREAMS
from bench.gateway.targets import LeftOut

SHOWN = 25
LOADS: dict[str, tuple[Question, int]] = {
    "json": (JSON, JSON_CONNECTIONS),
    "paced": (PACED, PACED_STREAMS),
}


def measure(target: Target, seconds: float) -> Figures:
    """Sample the daemon under both loads; give its top functions by their own time, and by all of it."""
    py_spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if py_spy is None:
        raise LeftOut("There is no py-spy: pip install py-spy")
    return {name: _sampled(py_spy, target, *load, seconds) for name, load in LOADS.items()}


def _sampled(py_spy: str, target: Target, question: Question, connections: int, seconds: float) -> Figures:
    say(f"  {connections} connections for {seconds:g} s")
    with tempfile.NamedTemporaryFile(prefix="fpb", dir="/tmp") as file:
        command = [py_spy, "record", "--pid", str(target.pid), "--duration", f"{seconds:.0f}"]
        # Only who holds the interpreter's lock: threads that wait would fill the list.
        command += ["--gil", "--rate", "500", "--format", "raw", "--output", file.name]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as sampler:
            uvloop.run(drive(target, question, connections, for_seconds(seconds + 1)))
            _, complaint = sampler.communicate()
        if sampler.returncode != 0:
            raise LeftOut(complaint.decode().strip())
        return _top(Path(file.name).read_text())


def _top(stacks: str) -> Figures:
    """Read lines of `outermost;…;innermost samples`."""
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, samples = line.rpartition(" ")
        functions = [re.sub(r":\d+\)$", ")", frame) for frame in frames.split(";")]
        own[functions[-1]] += int(samples)
        whole.update(dict.fromkeys(functions, int(samples)))
    return {"own": _shares(own, own.total()), "with_callees": _shares(whole, own.total())}


def _shares(samples: Counter[str], total: int) -> list[str]:
    return [f"{amount / total:6.1%}  {function}" for function, amount in samples.most_common(SHOWN)]
