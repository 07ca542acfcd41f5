import hashlib
import os
from pathlib import Path

import pytest
from tests.fakes.upstream import open_upstream

from footplate_daemon.benchmarks import environment
from footplate_daemon.switching.engine import free_port
from footplate_daemon.switching.probe import Address
from footplate_daemon.wire import GpuSnapshot, Sample


def test_the_machine_is_described() -> None:
    gpu = Sample(index=0, uuid="GPU-1", name="A GPU", memory_total_bytes=24, power_limit_watts=300.0)

    found = environment.of_machine(GpuSnapshot(at=0.0, gpus=(gpu,), driver_version="570.1"))

    assert found.cpu
    assert found.cpu_count >= 1
    assert found.ram_total_bytes > 0
    assert found.system.startswith("Linux ")
    assert [(each.name, each.memory_total_bytes) for each in found.gpus] == [("A GPU", 24)]
    assert found.driver_version == "570.1"


def test_one_file_has_its_own_hash(tmp_path: Path) -> None:
    file = tmp_path / "qa.gguf"
    file.write_bytes(b"weights")

    assert environment.weight_files(file) == [file]
    digest = environment.hash_of_file(file)
    assert digest == hashlib.sha256(b"weights").hexdigest()
    assert environment.hash_of_all([(file.name, digest)]) == f"sha256:{digest}"


def test_a_folder_has_one_hash_of_all_that_decides_an_answer(tmp_path: Path) -> None:
    for name in ("model.safetensors", "tokenizer.json", "README.md", "chat_template.jinja"):
        (tmp_path / name).write_text(name)

    files = environment.weight_files(tmp_path)

    assert [file.name for file in files] == ["chat_template.jinja", "model.safetensors", "tokenizer.json"]
    whole = environment.hash_of_all([("a", "1"), ("b", "2")])
    assert whole == environment.hash_of_all([("b", "2"), ("a", "1")])
    assert whole != environment.hash_of_all([("a", "1"), ("b", "3")])


def test_the_name_of_a_blob_in_hugging_faces_cache_is_its_hash(tmp_path: Path) -> None:
    blob = tmp_path / ("a1" * 32)
    blob.write_bytes(b"something else")
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)

    assert environment.hash_of_file(link) == "a1" * 32


def test_what_cannot_be_read_has_no_hash(tmp_path: Path) -> None:
    assert environment.hash_of_file(tmp_path / "gone") is None
    assert environment.weight_files(tmp_path / "gone") == []
    assert environment.hash_of_all([]) is None


def test_files_are_put_out_of_the_page_cache(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(os.urandom(1 << 20))

    assert environment.drop_from_page_cache([file])
    assert not environment.drop_from_page_cache([])
    assert not environment.drop_from_page_cache([tmp_path / "gone"])


async def test_an_engine_that_does_not_answer_has_no_version() -> None:
    assert await environment.runtime_version("vllm", Address(free_port()), ()) is None
    assert await environment.runtime_version("remote", Address(free_port()), ()) is None


async def test_an_engine_that_answers_something_else_has_none_either() -> None:
    async with open_upstream("qa") as upstream:
        assert await environment.runtime_version("vllm", Address(upstream.port), ()) is None
        assert await environment.ollama_digest(Address(upstream.port), "qa") is None


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ({"version": "0.32.0"}, "0.32.0"),
        ({"build_info": "b7000-abc"}, "b7000-abc"),
        ({"versions": {"torch": "2.13", "transformers": "5.19"}}, "torch 2.13, transformers 5.19"),
        ({"version": 7}, None),
        ({}, None),
    ],
)
def test_a_version_is_read_off_each_runtimes_own_words(told: dict[str, object], version: str | None) -> None:
    assert environment._version_in(told) == version
