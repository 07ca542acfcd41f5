"""The door to the terminal program: what must be settled before Textual is imported, then the program."""

from __future__ import annotations

import getpass
import os
import socket
from typing import TYPE_CHECKING

from footplate_daemon.settings import Paths
from footplate_tui import terminal

if TYPE_CHECKING:
    from footplate_tui.conversation import Daemon


def run(paths: Paths) -> int:
    """Run the terminal program until the user leaves it; give the exit code."""
    colours = terminal.prepare(os.environ)

    import textual  # noqa: PLC0415 -- it reads the environment when it is imported

    from footplate_tui.footplate_app import FootplateApp  # noqa: PLC0415 -- the same
    from footplate_tui.remembered import Remembered  # noqa: PLC0415 -- the same

    terminal.mend_textual(textual.__version__, slim=os.environ.get("FOOTPLATE_SLIM_WRITER") != "0")

    def connect() -> Daemon:
        from footplate_daemon.client import FootplateClient  # noqa: PLC0415 -- after the first picture

        return FootplateClient(paths.socket)

    app = FootplateApp(
        connect,
        Remembered(paths.state_dir / "terminal"),
        place=f"{getpass.getuser()}@{socket.gethostname()}",
        environment=dict(os.environ),
        colours=colours,
    )
    app.run()
    return app.return_code or 0
