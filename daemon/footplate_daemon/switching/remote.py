"""Whether a remote can be used: its address and key, and what it says when it is asked.

A remote has no process and no log, so its health is polled.
"""

import asyncio
from dataclasses import replace
from urllib.parse import urlsplit

from footplate_daemon.catalog import Elsewhere
from footplate_daemon.errors import Invalid
from footplate_daemon.runtimes.base import Runtime
from footplate_daemon.switching.probe import Address, ask
from footplate_daemon.wire import Diagnosis, Remedy

ANSWER_SECONDS = 5.0
WATCH_SECONDS = 5.0
TRIES = 3
"""So many polls in a row must fail before a remote counts as gone."""


def address_of(elsewhere: Elsewhere) -> Address:
    """Give where a remote listens, with its key; raise `Invalid` when the key cannot be read."""
    key = None
    if elsewhere.key_file is not None:
        try:
            key = elsewhere.key_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Invalid(
                f"The key file {elsewhere.key_file} cannot be read.", hint="Mend key_file in config.toml."
            ) from error
    first, *others = [_address(url, key) for url in (elsewhere.url, *elsewhere.others)]
    return replace(first, others=tuple(others))


def _address(url: str, key: str | None) -> Address:
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return Address(parts.port or (443 if tls else 80), key, parts.hostname or "", tls, parts.path)


async def what_is_wrong(address: Address, runtime: Runtime, served_name: str) -> Diagnosis | None:
    """Ask a remote for its models; None when it serves the name. Of several servers, one is enough."""
    async with asyncio.TaskGroup() as tasks:
        asked = [
            tasks.create_task(_what_is_wrong_at(each, runtime, served_name), name=f"ask {each.host}")
            for each in (address, *address.others)
        ]
    wrong = [task.result() for task in asked]
    return None if None in wrong else wrong[0]


async def _what_is_wrong_at(address: Address, runtime: Runtime, served_name: str) -> Diagnosis | None:
    answer = await ask(address, "GET", "/v1/models", timeout_seconds=ANSWER_SECONDS)
    where = f"{address.host}:{address.port}"
    if answer is None:
        return _diagnosis(
            "remote_unreachable", f"Nobody answers on {where}.", "Check the url and the network"
        )
    if answer.status in {401, 403}:
        return _diagnosis("bad_token", f"{where} does not accept the key.", "Check key_file")
    if answer.status != 200:
        return _diagnosis(
            "remote_unreachable", f"{where} answered HTTP {answer.status} for its models.", "Check the url"
        )
    if not runtime.serves(answer.json(), served_name):
        return _diagnosis(
            "model_missing", f"{where} does not list {served_name}.", "Set served_name to a name it lists"
        )
    return None


async def until_gone(address: Address, runtime: Runtime, served_name: str) -> Diagnosis:
    """Return why a remote can no longer be used, as soon as it cannot."""
    failures = 0
    while True:
        wrong = await what_is_wrong(address, runtime, served_name)
        failures = failures + 1 if wrong else 0
        if wrong is not None and failures >= TRIES:
            return wrong
        await asyncio.sleep(WATCH_SECONDS if wrong is None else WATCH_SECONDS / TRIES)


def _diagnosis(code: str, cause: str, remedy: str) -> Diagnosis:
    title = f"{remedy} in config.toml, then: footplate reload"
    return Diagnosis(code=code, cause=cause, remedies=(Remedy(id=1, title=title, applies=False),))
