"""Files that go with a question: taken for what their bytes say, refused where no model could read them."""

import base64

import pytest

from footplate_daemon.attachments import LARGEST_TEXT_BYTES, File, content, read
from footplate_daemon.errors import Invalid
from footplate_daemon.wire import AttachmentWish

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


def wish(data: bytes, name: str = "a file") -> AttachmentWish:
    return AttachmentWish(name=name, data=base64.b64encode(data).decode())


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0 JFIF", "image/jpeg"),
        (b"GIF89a...", "image/gif"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"),
        ("Zażółć".encode(), "text/plain"),
        (b"", "text/plain"),
    ],
)
def test_a_file_is_what_its_bytes_say(data: bytes, media_type: str) -> None:
    (file,) = read([wish(data, "photo.exe")])

    assert (file.name, file.media_type, file.data) == ("photo.exe", media_type, data)


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (wish(b"\xff\xfe\x00binary"), "neither an image"),
        (wish(b"text\0with a null"), "neither an image"),
        (wish(b"x" * (LARGEST_TEXT_BYTES + 1)), "larger than 1 MiB"),
        (AttachmentWish(name="x", data="no base64!"), "no base64"),
    ],
)
def test_what_no_model_can_read_is_refused(sent: AttachmentWish, says: str) -> None:
    with pytest.raises(Invalid, match=says) as caught:
        read([sent])

    assert caught.value.param == "attachments"
    assert caught.value.hint


def test_a_question_without_files_is_plain_text() -> None:
    assert content("Why?", (), with_images=True) == "Why?"


def test_files_stand_before_the_question_and_a_text_says_its_name() -> None:
    files = (File("a.png", "image/png", PNG), File("notes.txt", "text/plain", b"Milk"))

    picture, text, question = list(content("What is this?", files, with_images=True))

    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert picture == {"type": "image_url", "image_url": {"url": url}}
    assert text == {"type": "text", "text": "notes.txt:\n\nMilk\n"}
    assert question == {"type": "text", "text": "What is this?"}


def test_a_model_that_only_reads_is_told_of_an_earlier_image() -> None:
    picture, _ = list(content("And now?", [File("a.png", "image/png", PNG)], with_images=False))

    assert picture == {"type": "text", "text": "[image: a.png]"}
