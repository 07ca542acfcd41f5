"""Runs the body of one test: `python -m tests.fakes.nvml.child MODULE NAME`."""

import asyncio
import importlib
import os
import sys
from pathlib import Path

from tests.fakes.nvml.driver import BODIES, FakeDriver

SECONDS = 30.0


async def run(module: str, name: str) -> None:
    importlib.import_module(module)
    driver = FakeDriver(Path(os.environ["FOOTPLATE_FAKE_NVML"]))
    async with asyncio.timeout(SECONDS):
        await BODIES[module, name](driver)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2]))
