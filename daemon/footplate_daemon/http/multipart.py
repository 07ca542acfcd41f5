"""A form with one file, taken in as it comes: the file goes to the disk, the other fields are short."""

import asyncio
import logging
from collections.abc import Callable

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from footplate_daemon.batches.files import Upload
from footplate_daemon.errors import Invalid
from footplate_daemon.http.server import Request

# It warns of every form that is none; the client is told, and the log is for us.
logging.getLogger("python_multipart").setLevel(logging.ERROR)

FIELD_LIMIT = 64 * 1024
"""Bytes of all fields but the file."""
HINT = 'Send multipart/form-data: curl -F purpose=batch -F "file=@requests.jsonl" …/v1/files'


class Form:
    """What came of a form."""

    def __init__(self, upload: Upload, limit: Callable[[dict[str, str]], int]) -> None:
        """`limit` says how large the file may be, by what other fields have come before it."""
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        """None while there was no file."""
        self._upload = upload
        self._limit = limit
        self._headers: dict[bytes, bytes] = {}
        self._header_name = self._header_value = b""
        self._name = ""
        self._is_file = False
        self._text = bytearray()
        self._field_bytes = 0
        self.is_complete = False

    async def receive(self, request: Request) -> None:
        """Take in the body of a request, no faster than the disk takes it.

        Raise `Invalid` for what is no such form, `TooLarge` as soon as the file is, and `ClientLeft`.
        """
        parser = MultipartParser(_boundary(request.header(b"content-type")), self._callbacks())  # type: ignore[arg-type]  # its own type is private
        async for piece in request.pieces():
            await asyncio.to_thread(self._feed, parser, piece)
        if not self.is_complete:
            raise Invalid("The form breaks off.", hint=HINT)

    def _feed(self, parser: MultipartParser, piece: bytes) -> None:
        try:
            parser.write(piece)
        except FormParserError as error:
            raise Invalid(f"This is no form: {error}.", hint=HINT) from error

    def _callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header_name,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers,
            "on_part_data": self._on_data,
            "on_part_end": self._on_end,
            "on_end": self._on_form_end,
        }

    def _begin(self) -> None:
        self._headers, self._text = {}, bytearray()

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        self._name = options.get(b"name", b"").decode(errors="replace")
        self._is_file = self._name == "file"
        if not self._is_file:
            return
        if self.filename is not None:
            raise Invalid("There are several files in the form.", param="file", hint="Send one at a time.")
        self.filename = options.get(b"filename", b"").decode(errors="replace") or "file"

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._upload.write(data[start:end], self._limit(self.fields))
            return
        self._field_bytes += end - start
        if self._field_bytes > FIELD_LIMIT:
            raise Invalid("The fields of the form are too long.", param=self._name[:100], hint=HINT)
        self._text += data[start:end]

    def _on_end(self) -> None:
        if not self._is_file:
            self.fields[self._name] = self._text.decode(errors="replace")

    def _on_form_end(self) -> None:
        self.is_complete = True


def _boundary(content_type: bytes | None) -> bytes:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise Invalid("A file is sent as a form, with a boundary.", hint=HINT)
    return boundary
