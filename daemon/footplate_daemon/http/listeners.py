"""Which face answers where: control and gateway on the Unix socket, the gateway with a key on TCP."""

import asyncio
import logging
import os
import socket
import time
from pathlib import Path

from footplate_daemon import settings
from footplate_daemon.errors import Conflict, FootplateError, Unavailable
from footplate_daemon.gateway.keys import KeyRing
from footplate_daemon.http import tcp
from footplate_daemon.http.asgi import App, asgi
from footplate_daemon.http.openai import OpenAIFace, is_for_gateway
from footplate_daemon.http.server import BACKLOG, Handler, Limits, Request, Server

logger = logging.getLogger(__name__)

CONTROL_BODY_LIMIT = 128 * 1024 * 1024
"""Bytes of a control request; a session that is imported can be long."""
PROBE_SECONDS = 1.0


def local_face(control: App, openai: OpenAIFace) -> Handler:
    """Answer on the Unix socket: `/v1/…` is for the gateway, everything else for control."""
    to_control = asgi(control, CONTROL_BODY_LIMIT)

    async def answer(request: Request) -> None:
        if is_for_gateway(request.path):
            await openai.answer_local(request)
        else:
            await to_control(request)

    return answer


def limits(gateway: settings.Gateway) -> Limits:
    """Turn what the operator decided into what a client may do."""
    return Limits(
        header_bytes=gateway.max_header_kib * 1024,
        request_seconds=gateway.request_timeout_seconds,
        connections=gateway.max_connections,
    )


class TcpDoors:
    """The TCP addresses: open while the configuration names them and there has been a key."""

    def __init__(self, server: Server, face: Handler, keys: KeyRing, gateway: settings.Gateway) -> None:
        self._server = server
        self._face = face
        self._keys = keys
        self._gateway = gateway
        self._open: list[asyncio.Server] = []
        self._contexts: list[tcp.Listener] = []
        self._moving = asyncio.Lock()
        self.problem: str | None = None
        """Why TCP is not open although it should be."""

    async def run(self) -> None:
        """Open as soon as there is a key; until cancelled."""
        try:
            async for _ in self._keys.topic.follow():
                async with self._moving:
                    await self._open_if_shut()
        finally:
            self._shut()

    async def take_up(self, gateway: settings.Gateway) -> None:
        """Take up a changed configuration: other addresses, or a certificate that was renewed."""
        async with self._moving:
            before, self._gateway = self._gateway, gateway
            self._server.limits = limits(gateway)
            if (before.listen, before.tls_cert, before.tls_key) != (
                gateway.listen,
                gateway.tls_cert,
                gateway.tls_key,
            ):
                self._shut()
            await self._open_if_shut()
            try:
                for _, context in self._contexts:
                    if context is not None:
                        tcp.take_certificate(context, gateway)
            except FootplateError as error:  # the certificate before stays
                self._tell_problem(error)

    async def _open_if_shut(self) -> None:
        self.problem = None
        if self._open or not self._gateway.listen:
            return
        try:
            self._contexts = tcp.open_tcp(self._gateway, has_keys=self._keys.any_live(time.time()))
        except FootplateError as error:
            self._tell_problem(error)
            return
        for listener, tls in self._contexts:
            self._open.append(await self._server.listen(listener, self._face, tls))
        logger.info("TCP is open", extra={"addresses": [str(each) for each in self._gateway.addresses]})

    def _tell_problem(self, error: FootplateError) -> None:
        self.problem = f"{error.message} {error.hint or ''}".strip()
        logger.warning("TCP is not as the configuration says", extra={"cause": error.message})

    def _shut(self) -> None:
        for listening in self._open:
            listening.close()
        self._server.end_tcp()
        self._open, self._contexts = [], []


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


def _remove_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise Conflict(f"Another daemon answers on {path}.", hint="See: footplate status")
