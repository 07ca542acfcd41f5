"""What a model is sent for a turn."""

from typing import Any

from footplate_daemon.attachments import CHARACTERS_OF_AN_IMAGE, File
from footplate_daemon.branches import alone
from footplate_daemon.messages import Reader, messages
from footplate_daemon.wire import Turn, TurnState

AMPLE = Reader(100_000)
IMAGE = File("a.png", "image/png", b"\x89PNG")


def turn(number: int, prompt: str, answer: str = "", *files: File, **where: int) -> Turn:
    return Turn(
        session_id="s1",
        number=number,
        state=TurnState.DONE if answer else TurnState.WAITING,
        prompt=prompt,
        answer=answer,
        asked_at=float(number),
        attachments=tuple(file.shape() for file in files),
        **where,
    )


def said(sent: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    return [(message["role"], message["content"]) for message in sent]


def test_what_was_said_before_comes_first_and_the_system_message_before_all() -> None:
    path = [turn(1, "Hello", "Hi."), turn(2, "Lost"), turn(3, "Why?")]

    assert said(messages(path, AMPLE, system="Be brief.")) == [
        ("system", "Be brief."),
        ("user", "Hello"),
        ("assistant", "Hi."),
        ("user", "Why?"),
    ]


def test_what_does_not_fit_is_left_out_from_the_oldest_on() -> None:
    path = [turn(1, "a" * 60, "b" * 60), turn(2, "c" * 30, "d" * 30), turn(3, "Why?")]

    assert said(messages(path, Reader(100))) == [
        ("user", "c" * 30),
        ("assistant", "d" * 30),
        ("user", "Why?"),
    ]
    assert said(messages(path, Reader(3))) == [("user", "Why?")]


def test_a_former_image_goes_along_as_long_as_it_fits() -> None:
    path = [turn(1, "What is this?", "A cat.", IMAGE), turn(2, "Sure?")]
    files = {1: (IMAGE,)}

    seen = messages(path, Reader(CHARACTERS_OF_AN_IMAGE + 100, sees_images=True), files=files)
    told = messages(path, AMPLE, files=files)
    dropped = messages(path, Reader(CHARACTERS_OF_AN_IMAGE, sees_images=True), files=files)

    assert seen[0]["content"][0]["type"] == "image_url"
    assert told[0]["content"][0] == {"type": "text", "text": "[image: a.png]"}
    assert said(dropped) == [("user", "Sure?")]


def test_an_answer_to_go_on_with_stands_last_for_a_model_that_can() -> None:
    path = [turn(1, "Count", "One, "), turn(2, "Continue.", "two, ", continue_of=1)]
    path.append(turn(3, "Continue.", continue_of=2))

    assert said(messages(path, Reader(1000, goes_on=True))) == [
        ("user", "Count"),
        ("assistant", "One, two, "),
    ]
    assert said(messages(path, AMPLE)) == [
        ("user", "Count"),
        ("assistant", "One, two, "),
        ("user", "Continue."),
    ]


def test_a_question_alone_has_all_of_its_answer() -> None:
    path = [turn(1, "Before", "Yes."), turn(2, "Count", "One, "), turn(3, "Continue.", continue_of=2)]

    assert [each.number for each in alone(path)] == [2, 3]
    assert [each.number for each in alone(path[:2])] == [2]
