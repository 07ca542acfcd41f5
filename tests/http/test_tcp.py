"""TCP sockets: opened as it is written, never wider, and not without a key."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import paths_in

from footplate_daemon import reach, settings
from footplate_daemon.errors import Conflict, FootplateError, Invalid
from footplate_daemon.http.tcp import open_tcp, take_certificate
from footplate_daemon.mistakes import ConfigErrors
from footplate_daemon.paths import Paths
from footplate_daemon.settings import Address, Gateway
from footplate_daemon.store.database import Database
from footplate_daemon.store.keys import KeyStore

ANY_PORT = "127.0.0.1:0"


@pytest.fixture
def addresses() -> Iterator[Callable[[Gateway], list[str]]]:
    """Open what is written; give where it listens."""
    with ExitStack() as opened:

        def open_all(gateway: Gateway) -> list[str]:
            sockets = [opened.enter_context(listener) for listener, _ in open_tcp(gateway, has_keys=True)]
            return [each.getsockname()[0] for each in sockets]

        yield open_all


def refusal(gateway: Gateway, *, has_keys: bool = True) -> FootplateError:
    with pytest.raises(FootplateError) as caught:
        open_tcp(gateway, has_keys=has_keys)
    return caught.value


def test_nothing_is_opened_unless_it_is_written() -> None:
    assert open_tcp(Gateway(), has_keys=True) == []
    assert open_tcp(Gateway(), has_keys=False) == []


def test_what_is_opened_takes_connections(addresses: Callable[[Gateway], list[str]]) -> None:
    ((listener, tls),) = open_tcp(Gateway(listen=(ANY_PORT,)), has_keys=True)

    with listener, closing(socket.create_connection(listener.getsockname(), timeout=5)):
        accepted, _ = listener.accept()
        accepted.close()
    assert tls is None
    assert addresses(Gateway(listen=(ANY_PORT, "localhost:0"))) == ["127.0.0.1", "127.0.0.1"]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_ipv6_does_not_take_ipv4_with_it(addresses: Callable[[Gateway], list[str]]) -> None:
    ((listener, _),) = open_tcp(Gateway(listen=("[::]:0",)), has_keys=True)

    with listener:
        port = listener.getsockname()[1]
        assert addresses(Gateway(listen=(f"127.0.0.1:{port}",))) == ["127.0.0.1"]
    assert addresses(Gateway(listen=("[::1]:0",))) == ["::1"]


def test_without_a_key_tcp_stays_shut_and_says_how_to_make_one() -> None:
    error = refusal(Gateway(listen=(ANY_PORT, "[::1]:8000")), has_keys=False)

    assert isinstance(error, Conflict)
    assert error.message == "TCP is not opened on 127.0.0.1:0, [::1]:8000: there is no API key yet."
    assert error.hint == "Make one: footplate keys create NAME"


def test_who_holds_the_port_is_named() -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-u",
            "-c",
            "import socket\ns = socket.create_server(('127.0.0.1', 0))\nprint(s.getsockname()[1])\ninput()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout
        port = int(holder.stdout.readline())
        error = refusal(Gateway(listen=(f"127.0.0.1:{port}",)))
        holder.communicate("\n")

    assert isinstance(error, Conflict)
    assert error.message.startswith(f"127.0.0.1:{port} is taken by python")
    assert f"(pid {holder.pid}, " in error.message


def test_one_address_that_fails_leaves_none_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as other:
        free = other.getsockname()[1]
        other.close()
        listen = (f"127.0.0.1:{free}", f"127.0.0.1:{taken.getsockname()[1]}")
        refusal(Gateway(listen=listen))

        socket.create_server(("127.0.0.1", free)).close()


def test_an_address_of_another_machine_is_refused() -> None:
    error = refusal(Gateway(listen=("192.0.2.1:8000",)))

    assert isinstance(error, Invalid)
    assert error.message == "192.0.2.1 is no address of this machine."


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open any port")
def test_a_port_of_the_system_is_refused() -> None:
    assert "below 1024" in refusal(Gateway(listen=("127.0.0.1:1",))).message


@dataclass(frozen=True)
class Certificate:
    """Two PEM files."""

    cert: Path
    key: Path

    @classmethod
    def make(cls, folder: Path, name: str) -> "Certificate":
        made = cls(folder / f"{name}.pem", folder / f"{name}.key")
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        named = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run(
            ["openssl", "req", "-x509", *kind, *named, "-keyout", str(made.key), "-out", str(made.cert)],
            check=True,
            capture_output=True,
            timeout=60,
        )
        return made

    def gateway(self, key: Path | None = None) -> Gateway:
        return Gateway(listen=(ANY_PORT,), tls_cert=str(self.cert), tls_key=str(key or self.key))


def name_shown(context: ssl.SSLContext, trusted: Path) -> str:
    """Shake hands in memory; give the name in the certificate that a client sees."""
    client_in, client_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    trusting = ssl.create_default_context(cafile=str(trusted))
    client = trusting.wrap_bio(client_in, client_out, server_hostname="127.0.0.1")
    server_in, server_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(server_in, server_out, server_side=True)
    for _ in range(3):
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
            server_in.write(client_out.read())
            client_in.write(server_out.read())
    certificate: Any = client.getpeercert()
    return str(dict(*certificate["subject"])["commonName"])


def test_with_a_certificate_tcp_speaks_tls_and_takes_up_a_renewed_one(tmp_path: Path) -> None:
    old, new = Certificate.make(tmp_path, "old"), Certificate.make(tmp_path, "new")

    ((listener, tls),) = open_tcp(old.gateway(), has_keys=True)

    listener.close()
    assert tls is not None
    assert name_shown(tls, old.cert) == "old"
    take_certificate(tls, new.gateway())
    assert name_shown(tls, new.cert) == "new"


def test_files_that_are_no_certificate_are_refused_in_words(tmp_path: Path) -> None:
    mine, other = Certificate.make(tmp_path, "mine"), Certificate.make(tmp_path, "other")
    locked, text = tmp_path / "locked.key", tmp_path / "text"
    subprocess.run(
        ["openssl", "pkey", "-in", str(mine.key), "-aes256", "-passout", "pass:sesame", "-out", str(locked)],
        check=True,
        timeout=60,
    )
    text.write_text("no key")

    assert refusal(mine.gateway(other.key)).message == f"{other.key} is not the key of {mine.cert}."
    assert "without a passphrase" in (refusal(mine.gateway(locked)).hint or "")
    assert "are no PEM certificate" in refusal(mine.gateway(text)).message
    assert "No such file" in refusal(mine.gateway(tmp_path / "missing")).message


@given(st.ip_addresses().filter(lambda ip: getattr(ip, "scope_id", None) is None), st.integers(0, 65535))
def test_every_address_reads_back_as_it_is_written(ip: object, port: int) -> None:
    address = Address.parse(f"[{ip}]:{port}" if ":" in str(ip) else f"{ip}:{port}")

    assert Address.parse(str(address)) == address
    assert (address.host, address.port) == (str(ip), port)


@given(st.text(max_size=20) | st.from_regex(r"[0-9.:\[\]]{0,20}"))
def test_any_other_text_is_no_address(text: str) -> None:
    try:
        address = Address.parse(text)
    except ValueError:
        return
    assert 0 <= address.port <= 65535


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = paths_in(tmp_path)
    made.make()
    return made


def write(paths: Paths, listen: str) -> Path:
    paths.config_file.write_text(f"# mine\n[gateway]\nqueue_limit = 5\nlisten = {listen}\n")
    return paths.config_file


def test_opening_to_other_machines_without_a_key_is_a_mistake_in_the_file(paths: Paths) -> None:
    with pytest.raises(ConfigErrors) as caught:
        reach.load(paths, write(paths, '["127.0.0.1:8000", "0.0.0.0:8000"]'))

    (mistake,) = caught.value.mistakes
    assert str(mistake) == (
        "line 4: gateway.listen: 0.0.0.0:8000 can be reached from other machines, and there is no API key "
        "yet. Make one: footplate keys create NAME"
    )


async def test_with_a_key_or_on_this_machine_alone_it_is_none(paths: Paths) -> None:
    alone = reach.load(paths, write(paths, '["127.0.0.1:8000", "[::1]:8000", "localhost:80"]'))
    async with Database.open(paths.database) as database:
        await KeyStore(database).create("ci", "fp-abcdefgh", 0.0)
    opened = reach.load(paths, write(paths, '"[::]:8000"'))

    assert [address.is_loopback for address in alone.gateway.addresses] == [True, True, True]
    assert [address.is_loopback for address in opened.gateway.addresses] == [False]
    assert reach.shut(opened.gateway, has_keys=True) is None


DOCUMENT = (Path(__file__).parents[2] / "docs" / "network.md").read_text()


@pytest.mark.parametrize("snippet", re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL))
def test_every_snippet_of_the_document_is_right(
    snippet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("footplate.pem", "footplate-key.pem"):
        (tmp_path / name).touch()

    assert settings.parse(snippet.encode(), Path("config.toml")).gateway.addresses


def test_the_limits_in_the_document_are_the_defaults() -> None:
    told = re.findall(r"\| `(\w+)` \| (\d+) \|", DOCUMENT)

    assert len(told) == 5
    assert {name: getattr(Gateway(), name) for name, _ in told} == {name: int(value) for name, value in told}


NGINX = "pid {0}/pid;\nerror_log {0}/log;\nevents {{}}\nhttp {{ include {0}/site; }}\n"


@pytest.mark.skipif(shutil.which("nginx") is None, reason="there is no nginx here")
def test_nginx_takes_the_example(tmp_path: Path) -> None:
    made = Certificate.make(tmp_path, "llm.example")
    text = (Path(__file__).parents[2] / "docs" / "examples" / "nginx.conf").read_text()
    text = re.sub(
        r"/etc/\S+/fullchain.pem", str(made.cert), re.sub(r"/etc/\S+/privkey.pem", str(made.key), text)
    )
    (tmp_path / "site").write_text(text)
    (tmp_path / "nginx.conf").write_text(NGINX.format(tmp_path))

    subprocess.run(["nginx", "-t", "-q", "-c", str(tmp_path / "nginx.conf")], check=True, timeout=60)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
@pytest.mark.parametrize("name", ["footplate.service", "footplate-system.service"])
def test_systemd_takes_the_examples(name: str, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "examples" / name).read_text()
    unit = tmp_path / "footplate.service"
    unit.write_text(re.sub(r"=\S+/bin/footplate ", "=/bin/true ", text))
    scope = "--system" if "system" in name else "--user"

    checked = subprocess.run(
        ["systemd-analyze", "verify", scope, str(unit)],
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (checked.returncode, checked.stderr) == (0, "")
