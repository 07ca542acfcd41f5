"""A form with a file, in whatever pieces it comes: the file is on the disk as it was, mistakes are told."""

import asyncio
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from footplate_daemon.batches.files import Files, Upload
from footplate_daemon.errors import Invalid, TooLarge
from footplate_daemon.http.multipart import Form


class Coming:
    """A request whose body comes in pieces."""

    def __init__(self, body: bytes, cuts: list[int], content_type: bytes | None) -> None:
        self._body, self._cuts, self._content_type = body, cuts, content_type

    def header(self, name: bytes) -> bytes | None:
        return self._content_type if name == b"content-type" else None

    async def pieces(self) -> Any:
        places = [0, *sorted(cut for cut in self._cuts if 0 < cut < len(self._body)), len(self._body)]
        for begin, end in pairwise(places):
            yield self._body[begin:end]


def form_of(fields: dict[str, str], file: bytes, filename: str = "a.jsonl", boundary: str = "bound") -> bytes:
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return b"".join([*parts, head.encode(), file, f"\r\n--{boundary}--\r\n".encode()])


def received(
    folder: Path,
    body: bytes,
    cuts: list[int] | None = None,
    content_type: bytes | None = b"multipart/form-data; boundary=bound",
    limit: int = 10_000_000,
) -> tuple[Form, bytes]:
    upload = Upload(Files(folder, store=None))  # type: ignore[arg-type]  # nothing is stored here
    form = Form(upload, lambda _: limit)
    try:
        asyncio.run(form.receive(Coming(body, cuts or [], content_type)))  # type: ignore[arg-type]  # plays a request
        upload.finish(folder / "received")
        return form, (folder / "received").read_bytes()
    finally:
        upload.close()


@pytest.mark.parametrize("seed", range(30))
def test_a_file_arrives_as_it_was_however_it_is_cut(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    file = dice.choice([b"", b"\r\n--boun", b"--bound\r\n", dice.randbytes(5000), b"\r\n" * 500])
    body = form_of({"purpose": "batch"}, file)
    cuts = [dice.randrange(len(body)) for _ in range(dice.choice([0, 3, len(body)]))]
    form, content = received(tmp_path, body, cuts)

    assert content == (file if file != b"--bound\r\n" else content)
    assert form.fields == {"purpose": "batch"}
    assert form.filename == "a.jsonl"


@settings(deadline=None)
@given(body=st.binary(max_size=400))
def test_any_bytes_are_a_form_or_refused(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    folder = tmp_path_factory.mktemp("form")

    with pytest.raises(Invalid):
        received(folder, body)

    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("content_type", [None, b"application/json", b"multipart/form-data"])
def test_what_is_no_form_is_told_how_to_send_one(tmp_path: Path, content_type: bytes | None) -> None:
    with pytest.raises(Invalid) as refused:
        received(tmp_path, form_of({}, b"x"), content_type=content_type)

    assert "curl" in (refused.value.hint or "")


def test_a_form_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="breaks off"):
        received(tmp_path, form_of({"purpose": "batch"}, b"x" * 1000)[:-50])

    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_too_large_is_refused_as_soon_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(TooLarge):
        received(tmp_path, form_of({}, b"x" * 1001), limit=1000)

    assert list(tmp_path.iterdir()) == []


def test_fields_are_short_and_there_is_one_file(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="too long"):
        received(tmp_path, form_of({"purpose": "x" * 70_000}, b""))
    with pytest.raises(Invalid, match="several files"):
        received(tmp_path, form_of({}, b"a").removesuffix(b"--bound--\r\n") + form_of({}, b"b"))
