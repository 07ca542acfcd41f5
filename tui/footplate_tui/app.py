"""The door to the terminal program: what must be settled before Textual is imported, then the program."""

from __future__ import annotations

import getpass
import os
import socket
from typing import TYPE_CHECKING

from footplate_daemon.paths import Paths
from footplate_tui import terminal

if TYPE_CHECKING:
    from footplate_tui.conversation import Daemon
    from footplate_tui.tunnel import Tunnel


def run(
    paths: Paths, session_id: str | None = None, *, tunnel: Tunnel | None = None, mouse: bool = True
) -> int:
    """Run the terminal program until the user leaves it; give the exit code.

    It opens with this session; None: the one used last. The daemon is the one at the end of the tunnel,
    which is mended as long as the program runs; without one, the one here. Without `mouse` the terminal
    keeps its own, whatever is remembered.
    """
    colours = terminal.prepare(os.environ)

    import textual  # noqa: PLC0415 -- it reads the environment when it is imported

    from footplate_tui.footplate_app import FootplateApp  # noqa: PLC0415 -- the same
    from footplate_tui.remembered import Remembered  # noqa: PLC0415 -- the same

    terminal.mend_textual(textual.__version__, slim=os.environ.get("FOOTPLATE_SLIM_WRITER") != "0")

    host = tunnel.box.host if tunnel else ""

    def connect() -> Daemon:
        from footplate_daemon.client import FootplateClient  # noqa: PLC0415 -- after the first picture

        return FootplateClient(tunnel.socket, host=host) if tunnel else FootplateClient(paths.socket)

    remembered = Remembered(paths.state_dir / "terminal", host)
    app = FootplateApp(
        connect,
        remembered,
        place=host or f"{getpass.getuser()}@{socket.gethostname()}",
        host=host,
        session_id=session_id,
        environment=dict(os.environ),
        colours=colours,
    )
    if tunnel:
        tunnel.keep(lambda trouble: app.tell_of_line(trouble.error, is_passing=trouble.is_passing))
    app.run(mouse=mouse and remembered.mouse)
    return app.return_code or 0
