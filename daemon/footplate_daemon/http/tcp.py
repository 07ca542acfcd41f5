"""TCP sockets of the gateway: opened only where a key guards them, and with TLS if there is a certificate.

Everything here blocks for some milliseconds at most; looking for who holds a port takes a few more.
"""

import errno
import socket
import ssl
from contextlib import ExitStack, suppress

import psutil

from footplate_daemon import reach
from footplate_daemon.errors import Conflict, FootplateError, Invalid, Unavailable
from footplate_daemon.settings import Address, Gateway

BACKLOG = 1024

Listener = tuple[socket.socket, ssl.SSLContext | None]


def open_tcp(gateway: Gateway, *, has_keys: bool) -> list[Listener]:
    """Open every address of `listen`, or none and raise why: `Conflict`, `Invalid` or `Unavailable`.

    Without a key nothing is opened: `Conflict`. The caller closes the sockets.
    """
    problem = reach.shut(gateway, has_keys=has_keys)
    if problem is not None:
        raise problem
    tls = tls_context(gateway) if gateway.listen else None
    with ExitStack() as opened:
        listeners: list[Listener] = [
            (opened.enter_context(_listening(address)), tls) for address in gateway.addresses
        ]
        opened.pop_all()
    return listeners


def tls_context(gateway: Gateway) -> ssl.SSLContext | None:
    """Give what TLS needs, None without a certificate; raise `Invalid` if its files are not right."""
    if gateway.tls_cert is None or gateway.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    take_certificate(context, gateway)
    return context


def take_certificate(context: ssl.SSLContext, gateway: Gateway) -> None:
    """Read the certificate again: connections that begin from now on get it; raise `Invalid` as at first."""
    cert, key = gateway.tls_cert, gateway.tls_key
    assert cert is not None  # noqa: S101 - there is a context because there is a certificate
    try:
        # OpenSSL would ask for a passphrase on the terminal.
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            message, hint = f"{key} is not the key of {cert}.", "Name the two files of one certificate."
        else:
            message = f"{cert} and {key} are no PEM certificate with its key: {error.reason or error}."
            hint = "Both must be PEM files, the key without a passphrase: openssl pkey -in KEY"
        raise Invalid(message, hint=hint) from error
    except OSError as error:
        raise Invalid(
            f"{cert} or {key} cannot be read: {error.strerror}.",
            hint="Give the user of the daemon read access to both.",
        ) from error


def _listening(address: Address) -> socket.socket:
    try:
        (family, kind, protocol, _, place), *_ = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
        with ExitStack() as opened:
            listener = opened.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # [::] would take 0.0.0.0 with it, which nobody has written.
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setblocking(False)
            listener.bind(place)
            listener.listen(BACKLOG)
            opened.pop_all()
            return listener
    except OSError as error:
        raise _not_opened(address, error) from error


def _not_opened(address: Address, error: OSError) -> FootplateError:
    """Say why, and what to do about it."""
    match error.errno:
        case errno.EADDRINUSE:
            holder = _holder(address.port)
            return Conflict(
                f"{address} is taken{f' by {holder}' if holder else ''}.",
                hint="End what uses it, or write another port in listen of [gateway].",
            )
        case errno.EACCES | errno.EPERM:
            return Invalid(
                f"{address} may not be opened: ports below 1024 are the system's.",
                hint="Write a port from 1024 on in listen of [gateway], and put nginx or caddy before it.",
            )
        case errno.EADDRNOTAVAIL:
            return Invalid(
                f"{address.host} is no address of this machine.",
                hint="Write one that `ip address` lists, or 127.0.0.1, in listen of [gateway].",
            )
        case errno.EAFNOSUPPORT:
            return Invalid(
                f"This machine has no IPv6: {address} cannot be opened.",
                hint="Write an IPv4 address in listen of [gateway].",
            )
        case _:
            return Unavailable(
                f"{address} cannot be opened: {error.strerror or error}.",
                hint="Write another address in listen of [gateway].",
            )


def _holder(port: int) -> str | None:
    """Give the process that listens on a port, as far as this user may know: `python (pid 12, ann)`."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or connection.laddr[1:2] != (port,):
                continue
            if connection.pid is not None:
                process = psutil.Process(connection.pid)
                return f"{process.name()} (pid {connection.pid}, {process.username()})"
    return None
