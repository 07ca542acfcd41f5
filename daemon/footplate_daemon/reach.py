"""Whether a key guards the gateway wherever the configuration opens it: without one TCP stays shut."""

import time
from pathlib import Path

from footplate_daemon import settings
from footplate_daemon.errors import Conflict
from footplate_daemon.mistakes import ConfigErrors, Mistake
from footplate_daemon.paths import Paths
from footplate_daemon.settings import Gateway, Settings
from footplate_daemon.store import keys
from footplate_daemon.toml_lines import line_of, locate

REMEDY = "Make one: footplate keys create NAME"


def shut(gateway: Gateway, *, has_keys: bool) -> Conflict | None:
    """Give the reason why TCP is not opened although it should be; None if it may be, or nobody wants it."""
    if has_keys or not gateway.listen:
        return None
    where = ", ".join(map(str, gateway.addresses))
    return Conflict(f"TCP is not opened on {where}: there is no API key yet.", hint=REMEDY)


def load(paths: Paths, file: Path) -> Settings:
    """Do what `settings.load` does; one more mistake is to open the machine to others without any key.

    The daemon itself starts without a key, because it takes a daemon to make one; it only stays shut.
    """
    loaded = settings.load(file)
    outside = [address for address in loaded.gateway.addresses if not address.is_loopback]
    if outside and not keys.any_live(paths.database, time.time()):
        line = line_of(locate(file.read_text("utf-8").replace("\r\n", "\n")), ("gateway", "listen"))
        sentence = f"{outside[0]} can be reached from other machines, and there is no API key yet."
        raise ConfigErrors(file, [Mistake(line, "gateway.listen", sentence, REMEDY)])
    return loaded
