"""Files that go with a question: what they are, and how an engine is given them.

Pure. What a file is, its bytes say: a name can be anything.
"""

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from footplate_daemon.errors import Invalid
from footplate_daemon.wire import Attachment, AttachmentWish

LARGEST_IMAGE_BYTES = 20 * 1024 * 1024
LARGEST_TEXT_BYTES = 1024 * 1024
LARGEST_TOGETHER_BYTES = 64 * 1024 * 1024
CHARACTERS_OF_AN_IMAGE = 4500
"""What an image takes of the context, as so many characters: about 1,500 tokens."""
IMAGES = "image/"

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_HINT = "Images (PNG, JPEG, WebP, GIF) up to 20 MiB and UTF-8 texts up to 1 MiB can be attached."


@dataclass(frozen=True)
class File:
    """An attachment with its bytes."""

    name: str
    media_type: str
    data: bytes

    @property
    def is_image(self) -> bool:
        return self.media_type.startswith(IMAGES)

    def shape(self) -> Attachment:
        """Describe it, without its bytes."""
        return Attachment(name=self.name, media_type=self.media_type, byte_count=len(self.data))


def read(wishes: Iterable[AttachmentWish]) -> tuple[File, ...]:
    """Take in what a client sent; raise `Invalid` naming the file that cannot be used."""
    files = tuple(_file(wish.name, decoded(wish.data, wish.name)) for wish in wishes)
    if sum(len(file.data) for file in files) > LARGEST_TOGETHER_BYTES:
        raise Invalid("The files together are larger than 64 MiB.", param="attachments", hint=_HINT)
    return files


def decoded(data: str, name: str) -> bytes:
    """Give the bytes of base64; raise `Invalid`."""
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"attachments: {name} is no base64.", param="attachments", hint=_HINT) from error


def length(attachment: Attachment) -> int:
    """Give what a file takes of the context, in characters."""
    return CHARACTERS_OF_AN_IMAGE if attachment.media_type.startswith(IMAGES) else attachment.byte_count


def content(prompt: str, files: Sequence[File], *, with_images: bool) -> str | list[dict[str, Any]]:
    """Give the content of a user's message: parts where there are files, texts before the question.

    To a model that reads text only, an image that was sent earlier is told by its name.
    """
    if not files:
        return prompt
    return [*(_part(file, with_images=with_images) for file in files), {"type": "text", "text": prompt}]


def _file(name: str, data: bytes) -> File:
    media_type = _media_type(data)
    if media_type is None:
        raise _unusable(f"{name} is neither an image that models read nor a text in UTF-8.")
    limit = LARGEST_IMAGE_BYTES if media_type.startswith(IMAGES) else LARGEST_TEXT_BYTES
    if len(data) > limit:
        raise _unusable(f"{name} is larger than {limit // 1024**2} MiB.")
    return File(name, media_type, data)


def _media_type(data: bytes) -> str | None:
    for signature, media_type in _SIGNATURES:
        if data.startswith(signature):
            return media_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else "text/plain"


def _part(file: File, *, with_images: bool) -> dict[str, Any]:
    if not file.is_image:
        return {"type": "text", "text": f"{file.name}:\n\n{file.data.decode()}\n"}
    if not with_images:
        return {"type": "text", "text": f"[image: {file.name}]"}
    url = f"data:{file.media_type};base64,{base64.b64encode(file.data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _unusable(message: str) -> Invalid:
    return Invalid(message, param="attachments", hint=_HINT)
