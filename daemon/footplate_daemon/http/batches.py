"""`/v1/files…` and `/v1/batches…`: OpenAI's, to the letter. A key sees what was made with it alone."""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs

from pydantic import BaseModel, ValidationError

from footplate_daemon.batches.files import Files, limit_of, too_large
from footplate_daemon.batches.keeper import Batches
from footplate_daemon.batches.shapes import batch_shape, file_shape
from footplate_daemon.bodies import parse_object
from footplate_daemon.errors import Invalid, NotFound
from footplate_daemon.http.answers import Headers
from footplate_daemon.http.multipart import Form
from footplate_daemon.http.server import Request
from footplate_daemon.store.files import Owner
from footplate_daemon.store.keys import Key
from footplate_daemon.wire_batches import (
    FILE_BYTES,
    BatchList,
    BatchWish,
    ExpiresAfter,
    FileDeleted,
    FileList,
    FilePurpose,
)

WISH_LIMIT = 1024 * 1024
"""Bytes of a request that makes a batch."""
PIECE = 256 * 1024
"""Bytes of a file that are read and sent at a time."""
PURPOSES = tuple(
    purpose
    for purpose in FilePurpose
    if purpose not in {FilePurpose.ASSISTANTS_OUTPUT, FilePurpose.BATCH_OUTPUT, FilePurpose.FINE_TUNE_RESULTS}
)
"""What a file that is sent may be for."""
FORM_BYTES = 1024 * 1024
"""What a form may be longer than its file."""
_ID = r"([A-Za-z0-9_-]{1,100})"
_FILE, _CONTENT = re.compile(rf"/v1/files/{_ID}"), re.compile(rf"/v1/files/{_ID}/content")
_BATCH, _CANCEL = re.compile(rf"/v1/batches/{_ID}"), re.compile(rf"/v1/batches/{_ID}/cancel")
LONGEST_FILENAME = 255


class Reply(Protocol):
    """The way back to the client."""

    request: Request
    client: str | None
    key: Key | None
    headers: Headers

    def json(self, status: int, value: Any) -> None:
        """Answer with JSON."""


def is_about_batches(path: str) -> bool:
    """Say whether a path is one of files or batches."""
    return path in {"/v1/files", "/v1/batches"} or path.startswith(("/v1/files/", "/v1/batches/"))


class BatchFace:
    """Answers what is asked about files and batches."""

    def __init__(self, files: Files, batches: Batches) -> None:
        self._files = files
        self._batches = batches

    async def answer(self, reply: Reply) -> None:
        """Answer a request; raise `errors.*` for one that cannot be."""
        request = reply.request
        owner = Owner(reply.client or "", by_key=reply.key is not None)
        match request.method, request.path:
            case "POST", "/v1/files":
                await self._upload(reply, owner)
            case "GET", "/v1/files":
                await self._list_files(reply, owner)
            case "POST", "/v1/batches":
                await self._create(reply, owner)
            case "GET", "/v1/batches":
                await self._list_batches(reply, owner)
            case method, path:
                await self._answer_about_one(reply, owner, method, path)

    async def _answer_about_one(self, reply: Reply, owner: Owner, method: str, path: str) -> None:
        if method == "GET" and (found := _FILE.fullmatch(path)):
            _send(reply, file_shape(await self._files.get(found[1], owner)))
        elif method == "DELETE" and (found := _FILE.fullmatch(path)):
            await self._files.delete(found[1], owner)
            _send(reply, FileDeleted(id=found[1]))
        elif method == "GET" and (found := _CONTENT.fullmatch(path)):
            file = await self._files.get(found[1], owner)
            await _send_content(reply, self._files.path(file.id))
        elif method == "GET" and (found := _BATCH.fullmatch(path)):
            _send(reply, batch_shape(await self._batches.get(found[1], owner)))
        elif method == "POST" and (found := _CANCEL.fullmatch(path)):
            _send(reply, batch_shape(await self._batches.cancel(found[1], owner)))
        else:
            raise NotFound(
                f"There is no {method} {path} here.",
                hint="GET, POST /v1/files; GET, DELETE /v1/files/{id}; GET /v1/files/{id}/content;"
                " GET, POST /v1/batches; GET /v1/batches/{id}; POST /v1/batches/{id}/cancel",
            )

    # Files

    async def _upload(self, reply: Reply, owner: Owner) -> None:
        announced = reply.request.header(b"content-length")
        if announced is not None and int(announced) > FILE_BYTES + FORM_BYTES:
            raise too_large(FILE_BYTES)
        upload = self._files.receive()
        try:
            form = Form(upload, lambda fields: limit_of(_purpose_if_known(fields)))
            await form.receive(reply.request)
            purpose = _purpose(form.fields)
            seconds = _expires_after(form.fields)
            if form.filename is None:
                raise Invalid(
                    "`file` is missing.", param="file", hint="Send the file in a field named `file`."
                )
            if upload.size > limit_of(purpose):  # the purpose may come after the file
                raise too_large(limit_of(purpose))
            filename = Path(form.filename.replace("\\", "/")).name[:LONGEST_FILENAME] or "file"
            file = await self._files.keep(upload, owner, purpose, filename, seconds)
        finally:
            await asyncio.to_thread(upload.close)
        _send(reply, file_shape(file))

    async def _list_files(self, reply: Reply, owner: Owner) -> None:
        query = _query(reply.request)
        limit = _number(query, "limit", 10_000, 10_000)
        purpose, order = query.get("purpose"), query.get("order", "desc")
        if purpose is not None and purpose not in set(FilePurpose):
            raise _bad_purpose(purpose, tuple(FilePurpose))
        if order not in {"asc", "desc"}:
            raise Invalid("`order` must be asc or desc.", param="order", hint="Leave it out for desc.")
        rows = await self._files.page(
            owner,
            purpose=purpose,
            limit=limit + 1,
            after=query.get("after"),
            oldest_first=order == "asc",
        )
        data = tuple(file_shape(row) for row in rows[:limit])
        ids = (data[0].id, data[-1].id) if data else (None, None)
        _send(reply, FileList(data=data, first_id=ids[0], last_id=ids[1], has_more=len(rows) > limit))

    # Batches

    async def _create(self, reply: Reply, owner: Owner) -> None:
        body = parse_object(await reply.request.body(WISH_LIMIT))
        if "completion_window" not in body:
            raise _missing("completion_window")
        try:
            wish = BatchWish.model_validate(body)
        except ValidationError as error:
            raise _wrong(error) from error
        allowed = reply.key.models if reply.key is not None else ()
        _send(reply, batch_shape(await self._batches.create(wish, owner, allowed)))

    async def _list_batches(self, reply: Reply, owner: Owner) -> None:
        query = _query(reply.request)
        limit = _number(query, "limit", 20, 100)
        rows = await self._batches.store.page(owner, limit + 1, query.get("after"))
        data = tuple(batch_shape(row) for row in rows[:limit])
        ids = (data[0].id, data[-1].id) if data else (None, None)
        _send(reply, BatchList(data=data, first_id=ids[0], last_id=ids[1], has_more=len(rows) > limit))


def _send(reply: Reply, shape: BaseModel) -> None:
    reply.json(200, shape.model_dump(mode="json"))


async def _send_content(reply: Reply, path: Path) -> None:
    """Send a file no faster than the client reads it."""
    request = reply.request
    try:
        source = await asyncio.to_thread(path.open, "rb")
    except OSError as error:
        raise NotFound("The bytes of this file are gone.", hint="Upload it again.") from error
    with source:
        size = (await asyncio.to_thread(path.stat)).st_size
        kind, length = (b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % size)
        request.begin(200, [kind, length, *reply.headers])
        while size > 0 and not request.is_gone:
            piece = await asyncio.to_thread(source.read, min(PIECE, size))
            if not piece:
                break  # somebody made it shorter: the client sees that bytes are missing
            size -= len(piece)
            request.write(piece)
            await request.drain()
    if size:
        request.abandon()
    else:
        request.end()


def _query(request: Request) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(request.query.decode("latin-1")).items()}


def _number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:10]) <= most:
        raise Invalid(f"`{name}` must be a number from 1 to {most}.", param=name, hint="Leave it out.")
    return int(text)


def _purpose_if_known(fields: Mapping[str, str]) -> FilePurpose:
    """Give the purpose, as far as it has come: it may follow the file."""
    return _purpose(fields) if "purpose" in fields else FilePurpose.USER_DATA


def _purpose(fields: Mapping[str, str]) -> FilePurpose:
    purpose = fields.get("purpose")
    if purpose is None:
        raise Invalid("`purpose` is missing.", param="purpose", hint=f"It is one of: {', '.join(PURPOSES)}.")
    if purpose not in PURPOSES:
        raise _bad_purpose(purpose, PURPOSES)
    return FilePurpose(purpose)


def _bad_purpose(purpose: str, known: tuple[FilePurpose, ...]) -> Invalid:
    return Invalid(
        f"'{purpose[:100]}' is not one of {[str(each) for each in known]}.",
        param="purpose",
        hint="For a batch's requests it is: batch",
    )


def _expires_after(fields: Mapping[str, str]) -> int | None:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    try:
        return ExpiresAfter.model_validate({"anchor": anchor, "seconds": seconds}).seconds
    except ValidationError as error:
        raise Invalid(
            "`expires_after` must have the anchor `created_at` and from 3600 to 2592000 seconds.",
            param="expires_after",
            hint="Send expires_after[anchor]=created_at and expires_after[seconds]=86400, or neither.",
        ) from error


def _wrong(error: ValidationError) -> Invalid:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return _missing(field)
    if field == "completion_window":
        return Invalid("Invalid value: 'completion_window' must be '24h'.", param=field, hint='Send "24h".')
    return Invalid(f"'{field}': {first['msg']}.", param=field, hint="See: docs/batches.md")


def _missing(field: str) -> Invalid:
    return Invalid(
        f"Missing required parameter: '{field}'.",
        param=field,
        hint="A batch needs input_file_id, endpoint and completion_window.",
    )
