import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from footplate_daemon.catalog import Variant
from footplate_daemon.errors import Invalid, Unavailable
from footplate_daemon.runtimes.base import LaunchPlan, Load, Progress
from footplate_daemon.runtimes.transformers import WORKER, Transformers
from footplate_daemon.runtimes.transformers_worker import (
    HEEDED_IN_CHAT,
    Detokenizer,
    MessageReader,
    Piece,
    Refusal,
    StopScanner,
    find_generator,
    read_chat,
    read_wish,
)
from footplate_daemon.switching.diagnosis import diagnose
from footplate_daemon.weights import Weights


def plan(**changes: Any) -> LaunchPlan:
    return LaunchPlan(
        **{
            "variant": "transformers/guide",
            "model": "org/guide",
            "served_name": "guide",
            "port": 4711,
            **changes,
        }
    )


def environment(folder: Path, packages: Sequence[str] = ("torch", "transformers")) -> Path:
    """Make what looks like a virtual environment; give its Python."""
    for package in packages:
        init = folder / "lib" / "python3.12" / "site-packages" / package / "__init__.py"
        init.parent.mkdir(parents=True)
        init.touch()
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    return python


@pytest.fixture
def transformers(tmp_path: Path) -> Transformers:
    """A transformers in an environment of its own, with a space in its path."""
    environment(tmp_path / "its own")
    return Transformers(str(tmp_path / "its own"), environment={"PATH": "/usr/bin"})


# --- Finding and launching -------------------------------------------------------------------------------


def test_the_worker_is_run_by_the_environments_python(transformers: Transformers, tmp_path: Path) -> None:
    launch = transformers.launch(
        plan(context=2048, parameters={"quantization": "4bit", "trust_remote_code": True})
    )

    assert launch.command == (
        *(str(tmp_path / "its own" / "bin" / "python"), str(WORKER)),
        *("--model", "org/guide", "--served-name", "guide", "--port", "4711"),
        *("--quantization", "4bit", "--trust-remote-code", "--context", "2048"),
    )
    assert WORKER.is_file()


def test_its_environment_holds_the_key_and_keeps_a_start_from_fetching(transformers: Transformers) -> None:
    launch = transformers.launch(plan(api_key="secret", env={"HF_HUB_OFFLINE": "0"}))

    assert launch.env == {
        "FOOTPLATE_ENGINE_KEY": "secret",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
    }
    assert "secret" not in launch.command


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"torch_dtype": "bfloat16"}, ("--dtype", "bfloat16")),
        ({"max_model_len": 1024}, ("--context", "1024")),
        ({"trust_remote_code": False, "device": "cuda:1"}, ("--no-trust-remote-code", "--device", "cuda:1")),
        ({"quantization": None, "attn_implementation": "eager"}, ("--attention", "eager")),
    ],
)
def test_parameters_are_its_flags(
    transformers: Transformers, parameters: Mapping[str, Any], expected: tuple[str, ...]
) -> None:
    command = transformers.launch(plan(parameters=parameters)).command

    assert command[command.index("4711") + 1 :] == expected


def test_a_parameter_that_the_worker_does_not_take_is_refused_before_the_start(
    transformers: Transformers,
) -> None:
    with pytest.raises(Invalid, match="no launch parameter gpu_memory_utilization") as refusal:
        transformers.launch(plan(parameters={"gpu_memory_utilization": 0.9}))

    assert "quantization" in str(refusal.value.hint)


@pytest.mark.parametrize(
    ("capabilities", "task"),
    [
        ((), ()),
        (("chat", "vision"), ()),
        (("embedding",), ("--task", "embedding")),
        (("rerank",), ("--task", "rerank")),
    ],
)
def test_the_worker_is_told_what_the_model_is_for(
    transformers: Transformers, capabilities: tuple[str, ...], task: tuple[str, ...]
) -> None:
    command = transformers.launch(plan(capabilities=capabilities)).command

    assert command[command.index("4711") + 1 :] == task


def test_a_model_for_two_things_is_refused_before_the_start(transformers: Transformers) -> None:
    with pytest.raises(Invalid, match="one of embedding, rerank at a time"):
        transformers.launch(plan(capabilities=("embedding", "rerank")))


def test_a_command_of_the_operators_stands_for_the_python() -> None:
    launch = Transformers(environment={}).launch(plan(command=("conda", "run", "-n", "hf", "python")))

    assert launch.command[:7] == ("conda", "run", "-n", "hf", "python", str(WORKER), "--model")


@pytest.mark.parametrize("place", [".venvs/transformers", "miniconda3/envs/transformers", "venvs/vllm"])
def test_an_environment_is_found_where_people_make_it(tmp_path: Path, place: str) -> None:
    python = environment(tmp_path / place)

    assert Transformers(environment={"HOME": str(tmp_path)}).find() == str(python)


def test_the_environment_of_the_command_on_path_is_found_through_a_link(tmp_path: Path) -> None:
    python = environment(tmp_path / "tools" / "hf")
    command = python.with_name("transformers")
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "transformers").symlink_to(command)

    found = Transformers(environment={"PATH": str(tmp_path / "local"), "HOME": "/nowhere"}).find()

    assert found == str(python)


def test_an_environment_without_torch_is_none(tmp_path: Path) -> None:
    environment(tmp_path / ".venvs" / "transformers", ["transformers"])

    assert Transformers(environment={"HOME": str(tmp_path)}).find() is None


def test_a_python_that_is_named_is_taken_at_its_word(tmp_path: Path) -> None:
    python = environment(tmp_path / "bare", [])

    assert Transformers(str(python), environment={}).find() == str(python)
    assert Transformers(str(tmp_path / "bare"), environment={}).find() == str(python)


def test_what_is_not_there_is_unavailable_and_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=f"There is no Python at {tmp_path}"):
        Transformers(str(tmp_path), environment={}).launch(plan())
    with pytest.raises(Unavailable, match="transformers is not installed"):
        Transformers(environment={"HOME": str(tmp_path)}).launch(plan())


def test_a_foreign_server_that_lists_the_name_is_not_the_worker(transformers: Transformers) -> None:
    ours = {"data": [{"id": "guide", "owned_by": "transformers"}]}

    assert transformers.serves(ours, "guide")
    assert not transformers.serves(ours, "another")
    assert not transformers.serves({"data": [{"id": "guide", "owned_by": "vllm"}]}, "guide")
    assert not transformers.serves(None, "guide")


# --- What its log says -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        ("worker: 5% importing torch", Progress("importing torch", 0.05)),
        ("worker: 62% loading weights", Progress("loading weights", 0.62)),
        ("worker: 100% ready", Progress("ready", 1.0)),
        ("Loading checkpoint shards:  50%|█████     | 2/4", Progress("loading weights", 0.625)),
        ("worker: request 7 stop: 15+39 tokens in 0.08 s", None),
    ],
)
def test_progress_is_read_from_a_line(
    transformers: Transformers, line: str, progress: Progress | None
) -> None:
    assert transformers.progress(line) == progress


@pytest.mark.parametrize(
    ("line", "code", "cause"),
    [
        (
            "worker: cannot listen on 127.0.0.1:4711: Address already in use",
            "port_taken",
            "Another program listens on port 4711.",
        ),
        (
            "worker: load failed: there is no model at /models/nope",
            "model_missing",
            "There is no model at /models/nope.",
        ),
        (
            "worker: load failed: /models/empty has no config.json",
            "model_missing",
            "/models/empty is no folder with a model in it: it has no config.json.",
        ),
        (
            "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find",
            "model_missing",
            "The weights are not on this machine, and the engine could not fetch them.",
        ),
        (
            "OSError: Error no file named model.safetensors, or other, found in directory /models/x.",
            "model_missing",
            "/models/x holds no weights.",
        ),
        (
            "has model type `nosuch` but Transformers does not recognize this architecture. This could be",
            "unknown_architecture",
            "This transformers does not know the architecture `nosuch`.",
        ),
        (
            "ValueError: Unrecognized configuration class <class 'transformers.models.clip.CLIPConfig'> for",
            "unknown_architecture",
            "This transformers cannot generate text with a model of the kind CLIPConfig.",
        ),
        (
            "safetensors._safetensors_rust.SafetensorError: Error while deserializing header: header",
            "corrupt_weights",
            "A file of the weights is damaged or incomplete.",
        ),
        (
            "worker: load failed: quantization 4bit needs bitsandbytes: /v/bin/python -m pip install it",
            "not_installed",
            "The quantization 4bit needs bitsandbytes. Run: /v/bin/python -m pip install it",
        ),
        (
            "ImportError: 4-bit quantization requires bitsandbytes: `pip install -U bitsandbytes>=0.46.1`",
            "not_installed",
            (
                "The environment of transformers lacks bitsandbytes. Run in it: "
                "pip install -U bitsandbytes>=0.46.1"
            ),
        ),
        (
            "worker: load failed: pictures need torchvision: /v/python -m pip install torchvision (of it)",
            "not_installed",
            (
                "A model that reads pictures needs torchvision. Run: /v/python -m pip install torchvision "
                "(of it)"
            ),
        ),
        (
            "ModuleNotFoundError: No module named 'torch'",
            "not_installed",
            "The Python of this runtime has no torch.",
        ),
        (
            "ValueError: The repository /models/x contains custom code which must be executed to",
            "remote_code",
            "The model brings program code of its own, which runs only with `trust_remote_code = true`.",
        ),
        (
            "worker: load failed: the device cuda cannot be used: Torch not compiled with CUDA enabled",
            "no_gpu",
            "torch cannot use the device cuda: Torch not compiled with CUDA enabled.",
        ),
        (
            (
                "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total "
                "capacity of 11.76 GiB of which 1.20 GiB is free. Process 4711 has 8.50 GiB memory in use."
            ),
            "out_of_gpu_memory",
            "The GPU's memory is full: 2.00 GiB more were needed, and 1.20 GiB were free.",
        ),
        (
            "worker: load failed: a context of 8192 was asked for, and the model was made for 4096",
            "context_too_long",
            "The model was made for a context of at most 4096 tokens, not 8192.",
        ),
    ],
)
def test_a_start_that_failed_has_a_cause_in_one_sentence(
    transformers: Transformers, line: str, code: str, cause: str
) -> None:
    log = [
        "worker: 5% importing torch",
        "Traceback (most recent call last):",
        line,
        "worker: load failed: it",
    ]

    diagnosis = diagnose(
        transformers,
        log,
        exit_code=1,
        variant=Variant(
            "transformers/guide", "transformers", "guide", Weights("path", "/models/guide"), "guide"
        ),
    )

    assert (diagnosis.code, diagnosis.cause) == (code, cause)


def test_its_own_gauges_tell_how_busy_it_is(transformers: Transformers) -> None:
    metrics = "footplate_worker_requests_running 1\nfootplate_worker_requests_waiting 3\n"

    assert transformers.load(metrics) == Load(running=1, waiting=3)
    assert transformers.sleeping(plan()) is None


def test_parameters_are_renamed_and_what_has_no_effect_is_named(transformers: Transformers) -> None:
    body = {"messages": [], "n_predict": 5, "repeat_penalty": 1.1, "response_format": {"type": "json_object"}}

    translated = transformers.translate(body)

    assert translated.body["max_tokens"] == 5
    assert translated.renamed == {"n_predict": "max_tokens", "repeat_penalty": "repetition_penalty"}
    assert translated.ignored == ("response_format",)


# --- The worker's text -----------------------------------------------------------------------------------


def cuts(text: str) -> list[list[str]]:
    """Give the text cut into pieces of every size."""
    return [
        [text[place : place + size] for place in range(0, len(text), size)]
        for size in range(1, len(text) + 1)
    ]


@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        (["STOP"], "one ST two "),
        (["nowhere"], "one ST two STOP three S"),
        (["two", "one ST"], ""),
        (["S"], "one "),
        ([], "one ST two STOP three S"),
    ],
)
def test_a_stop_string_ends_the_text_and_nothing_of_it_leaks(stops: list[str], expected: str) -> None:
    for pieces in cuts("one ST two STOP three S"):
        scanner = StopScanner(stops)
        given = [scanner.feed(piece) for piece in pieces]

        assert "".join([*given, scanner.end()]) == expected


def test_text_that_begins_no_stop_string_is_not_held_back() -> None:
    scanner = StopScanner(["\n\n"])

    assert [scanner.feed(text) for text in ("one", " two\n", "three")] == ["one", " two", "\nthree"]


CALL = '<tool_call>\n{"name": "get_status", "arguments": {"runtime": "vllm"}}\n</tool_call>'
CALLED = Piece("tool_call", {"name": "get_status", "arguments": '{"runtime": "vllm"}'})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("just text <think>no</think>", [Piece("content", "just text <think>no</think>")]),
        ("<think>\nwhy\n</think>\n\nthat", [Piece("reasoning", "why"), Piece("content", "that")]),
        ("\n<think>\n\n</think>\n\nthat", [Piece("content", "that")]),
        ("<think>\na < b </thin", [Piece("reasoning", "a < b </thin")]),
        (f"Let me see.\n{CALL}\n{CALL}", [Piece("content", "Let me see."), CALLED, CALLED]),
        (f"<think>why</think>{CALL}", [Piece("reasoning", "why"), CALLED]),
        (CALL.removesuffix("</tool_call>"), [CALLED]),
        ("<tool_call>{broken</tool_call> on", [Piece("content", "<tool_call>{broken</tool_call>on")]),
        ("a <tool_call", [Piece("content", "a <tool_call")]),
        ("  indented", [Piece("content", "  indented")]),
        ("<thin line", [Piece("content", "<thin line")]),
        ("", []),
    ],
)
def test_reasoning_and_tool_calls_are_taken_out_however_the_text_comes(
    text: str, expected: list[Piece]
) -> None:
    for pieces in cuts(text):
        reader = MessageReader(with_tools=True)
        read = [piece for text in pieces for piece in reader.feed(text)]

        assert joined([*read, *reader.end()]) == expected


def test_without_tools_a_tool_call_is_text() -> None:
    reader = MessageReader()

    assert joined([*reader.feed(CALL), *reader.end()]) == [Piece("content", CALL)]


def test_reasoning_that_the_prompt_began_needs_no_mark() -> None:
    reader = MessageReader(is_thinking=True)

    read = joined([*reader.feed("why</think>\nthat"), *reader.end()])

    assert read == [Piece("reasoning", "why"), Piece("content", "that")]


def joined(pieces: list[Piece]) -> list[Piece]:
    """Put neighbours of the same kind together; calls stand alone."""
    whole: list[Piece] = []
    for piece in pieces:
        if whole and piece.kind == whole[-1].kind != "tool_call":
            whole[-1] = Piece(piece.kind, whole[-1].value + piece.value)
        else:
            whole.append(piece)
    return whole


def test_half_a_character_is_never_sent() -> None:
    text = "Grüße: 你好 🚂 fine"
    detokenizer = Detokenizer(lambda tokens: bytes(tokens).decode(errors="replace"))

    given = [detokenizer.feed(byte) for byte in text.encode()]

    assert "".join([*given, detokenizer.end()]) == text
    assert not any("\ufffd" in piece for piece in given)


def test_broken_text_is_sent_all_the_same() -> None:
    detokenizer = Detokenizer(lambda tokens: bytes(tokens).decode(errors="replace"))

    given = [detokenizer.feed(byte) for byte in b"a" + b"\xff" * 20]

    assert "".join([*given, detokenizer.end()]) == "a" + "\ufffd" * 20
    assert all(len(before + after) > 0 for before, after in pairwise(["a", *filter(None, given)]))


# --- What it takes of a request --------------------------------------------------------------------------


def no_fetch(address: str) -> bytes:
    return f"fetched {address}".encode()


PNG = "iVBORw0KGgo="
BYTES = b"\x89PNG\r\n\x1a\n"
PICTURE = {"type": "image"}
TEXT = {"type": "text", "text": "What is it?"}


@pytest.mark.parametrize(
    ("message", "parts", "picture"),
    [
        (
            {"content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}, TEXT]},
            [PICTURE, TEXT],
            BYTES,
        ),
        (
            {"content": [TEXT, {"type": "image_url", "image_url": "http://h/a"}]},
            [TEXT, PICTURE],
            b"fetched http://h/a",
        ),
        ({"content": "What is it?", "image": f"data:image/png;base64,{PNG}"}, [PICTURE, TEXT], BYTES),
        ({"content": "What is it?", "images": [PNG]}, [PICTURE, TEXT], BYTES),
        (
            {"content": "What is it?", "image": {"url": "https://h/a"}},
            [PICTURE, TEXT],
            b"fetched https://h/a",
        ),
        (
            {"content": "![a cat](https://h/cat)What is it?"},
            [PICTURE, TEXT],
            b"fetched https://h/cat",
        ),
        (
            {"content": "https://h/cat.JPG?size=2 What is it?"},
            [PICTURE, {"type": "text", "text": " What is it?"}],
            b"fetched https://h/cat.JPG?size=2",
        ),
    ],
)
def test_a_picture_is_taken_in_every_form_in_which_clients_send_it(
    message: dict[str, Any], parts: list[dict[str, Any]], picture: bytes
) -> None:
    chat = read_chat([{"role": "user", **message}], with_pictures=True, fetch=no_fetch)

    assert chat.messages == [{"role": "user", "content": parts}]
    assert chat.pictures == [picture]


@pytest.mark.parametrize("address", ["/etc/passwd", "file:///etc/passwd", "ftp://h/a.png", "cGFzc3dk", "", 5])
def test_what_is_no_picture_and_any_file_of_this_machine_is_refused(address: Any) -> None:
    with pytest.raises(Refusal, match="A picture is given by") as refusal:
        read_chat([{"role": "user", "content": "?", "image": address}], with_pictures=True, fetch=no_fetch)

    assert refusal.value.status == 400


def test_a_picture_for_a_model_of_text_is_refused_and_a_link_stays_text() -> None:
    with pytest.raises(Refusal, match="image input is not supported"):
        read_chat([{"role": "user", "content": "?", "image": PNG}], with_pictures=False, fetch=no_fetch)

    chat = read_chat(
        [{"role": "user", "content": "![](https://h/a.png)"}], with_pictures=False, fetch=no_fetch
    )

    assert chat.messages[0]["content"] == "![](https://h/a.png)"


def test_a_page_that_is_no_picture_stays_text() -> None:
    text = "Read https://h/a.pngs, https://h/docs and [this](https://h/a.png)."

    chat = read_chat([{"role": "user", "content": text}], with_pictures=True, fetch=no_fetch)

    assert chat.messages[0]["content"] == [{"type": "text", "text": text}]


def test_arguments_of_earlier_calls_reach_the_template_as_objects() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": json.dumps({"a": 1})}}

    chat = read_chat(
        [{"role": "assistant", "content": None, "tool_calls": [call]}], with_pictures=False, fetch=no_fetch
    )

    assert chat.messages[0]["content"] == ""
    assert chat.messages[0]["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}


def test_what_has_no_effect_is_named_unless_it_asks_for_nothing() -> None:
    wish = read_wish(
        {
            "messages": [],
            "logprobs": False,
            "tool_choice": "auto",
            "response_format": {"type": "text"},
            "parallel_tool_calls": True,
            "user": None,
            "top_n_sigma": 1,
            "logit_bias": {"1": 2},
        },
        HEEDED_IN_CHAT,
    )

    assert wish.ignored == ("top_n_sigma", "logit_bias")


def test_a_forced_tool_call_is_reported_as_not_forced() -> None:
    assert read_wish({"tool_choice": "required"}, HEEDED_IN_CHAT).ignored == ("tool_choice",)


def test_a_model_without_generate_is_asked_through_its_language_model() -> None:
    class Generating:
        def generate(self) -> None: ...

    class Wrapped:
        language_model = Generating()

    class Deep:
        model = Wrapped()

    whole, deep = Generating(), Deep()

    assert find_generator(whole) is whole
    assert find_generator(deep) is Wrapped.language_model
    with pytest.raises(TypeError, match="object cannot generate text"):
        find_generator(object())
