"""Sockets and servers: who may connect, and which app answers.

The Unix socket is ours alone (0600) and carries control and gateway.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from footplate_daemon.errors import Conflict, TooLarge, Unavailable
from footplate_daemon.http.answers import (
    App,
    ClientLeft,
    Message,
    Receive,
    Scope,
    Send,
    read_body,
    send_error,
)
from footplate_daemon.http.openai import OpenAIFace, is_for_gateway

BACKLOG = 1024
CONTROL_BODY_LIMIT = 32 * 1024 * 1024
"""Bytes of a control request; a pasted text can be long."""
PROBE_SECONDS = 1.0
GOODBYE_SECONDS = 2
"""How long open connections may go on once the daemon is asked to stop."""


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: the daemon owns the signals.

    uvicorn re-raises SIGTERM after `serve`, which would end us before our own cleanup.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class Faces:
    """The app on the Unix socket: `/v1/…` goes to the gateway, everything else to control."""

    def __init__(self, control: App, openai: OpenAIFace) -> None:
        self._control = control
        self._openai = openai

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request with the face that it is for."""
        if scope["type"] == "http" and is_for_gateway(scope["path"]):
            await self._openai(scope, receive, send)
        elif scope["type"] == "http" and scope["method"] in {"POST", "PATCH", "PUT"}:
            await self._control_with_body(scope, receive, send)
        else:
            await self._control(scope, receive, send)

    async def _control_with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body within the limit first: the framework would read any."""
        try:
            body = await read_body(receive, CONTROL_BODY_LIMIT)
        except ClientLeft:
            return
        except TooLarge as error:
            await send_error(send, error)
            return
        given = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return given.pop() if given else await receive()

        await self._control(scope, again, send)


def bind_unix(path: Path) -> socket.socket:
    """Bind the daemon's socket, 0600, over a stale one; raise `Conflict` when a daemon answers there."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        if path.exists():
            _remove_stale(path)
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"The socket {path} cannot be made: {error.strerror or error}.",
            hint="Look at the folder's permissions, or set FOOTPLATE_HOME to another one.",
        ) from error
    finally:
        os.umask(mask)
    return listener


def server(app: Faces) -> Server:
    """Make the server for an app; it says nothing, our own access log does."""
    return Server(
        uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GOODBYE_SECONDS,
        )
    )


def _remove_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise Conflict(f"Another daemon answers on {path}.", hint="See: footplate status")
