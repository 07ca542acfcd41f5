"""What lies in the models folders, and what is on disk."""

import json
from pathlib import Path

import pytest

from footplate_daemon import weights
from footplate_daemon.weights import Found, OnDisk, Weights


def make(root: Path, *names: str, size: int = 10) -> None:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * size)


def names_in(root: Path) -> dict[str, str | None]:
    return {entry.name: entry.mmproj.name if entry.mmproj else None for entry in weights.find([root])}


def test_gguf_files_and_folders_of_safetensors_are_models(tmp_path: Path) -> None:
    make(tmp_path, "a.gguf", "publisher/repo/b-Q4_K_M.gguf", "c/config.json", "c/model.safetensors")
    make(tmp_path, "notes.txt", "d/config.json", ".hidden/e.gguf", "1/2/3/4/too-deep.gguf")

    assert weights.find([tmp_path, tmp_path / "none"]) == (
        Found("a", "llamacpp", tmp_path / "a.gguf"),
        Found("b-Q4_K_M", "llamacpp", tmp_path / "publisher/repo/b-Q4_K_M.gguf"),
        Found("c", "vllm", tmp_path / "c"),
    )


def test_parts_are_one_model(tmp_path: Path) -> None:
    make(tmp_path, *(f"big-0000{number}-of-00003.gguf" for number in (1, 2, 3)))

    (found,) = weights.find([tmp_path])

    assert (found.name, found.path.name) == ("big", "big-00001-of-00003.gguf")
    assert weights.on_disk(Weights("path", str(found.path)), tmp_path) == OnDisk(
        present=True, path=found.path, size_bytes=30
    )


def test_a_missing_part_means_that_it_is_not_on_disk(tmp_path: Path) -> None:
    make(tmp_path, "big-00001-of-00002.gguf")

    found = weights.on_disk(Weights("path", str(tmp_path / "big-00001-of-00002.gguf")), tmp_path)

    assert (found.present, found.size_bytes) == (False, 10)


@pytest.mark.parametrize(
    ("files", "attached"),
    [
        (["gemma-3-4b-it-Q4_K_M.gguf", "mmproj-gemma-3-4b-it-f16.gguf"], "mmproj-gemma-3-4b-it-f16.gguf"),
        (["gemma-3-4b-it-Q4_K_M.gguf", "gemma-3-4b-it.mmproj-Q8_0.gguf"], "gemma-3-4b-it.mmproj-Q8_0.gguf"),
        (["qwen-Q4_0.gguf", "mmproj-gemma-f16.gguf"], None),
        (["only.gguf", "mmproj-model-f16.gguf"], "mmproj-model-f16.gguf"),
        (["a.gguf", "b.gguf", "mmproj-F16.gguf"], None),
        (["x/a-Q4_0.gguf", "x/a-Q8_0.gguf", "x/mmproj-BF16.gguf", "x/mmproj-F16.gguf"], "mmproj-F16.gguf"),
    ],
)
def test_a_projector_is_attached_to_its_model_and_never_listed(
    tmp_path: Path, files: list[str], attached: str | None
) -> None:
    make(tmp_path, *files)

    listed = names_in(tmp_path)

    assert set(listed.values()) == {attached}
    assert not any("mmproj" in name for name in listed)


def test_the_same_name_in_two_folders_names_the_folder_too(tmp_path: Path) -> None:
    make(tmp_path, "a/m.gguf", "b/m.gguf")

    assert set(names_in(tmp_path)) == {"m", "b-m"}


@pytest.mark.parametrize(
    ("text", "runtime", "kind", "location"),
    [
        ("google/gemma-3-4b-it", "vllm", "repo", "google/gemma-3-4b-it"),
        ("Qwen/Qwen3-8B-GGUF:Q4_K_M", "llamacpp", "repo", "Qwen/Qwen3-8B-GGUF:Q4_K_M"),
        ("coder/m.gguf", "llamacpp", "path", "/models/coder/m.gguf"),
        ("./publisher/model", "vllm", "path", "/models/publisher/model"),
        ("/srv/m", "vllm", "path", "/srv/m"),
        ("m", "transformers", "path", "/models/m"),
        ("gemma3:4b", "ollama", "name", "gemma3:4b"),
        ("hf.co/org/model", "ollama", "name", "hf.co/org/model"),
    ],
)
def test_what_is_written_is_a_repository_a_path_or_a_name(
    text: str, runtime: str, kind: str, location: str
) -> None:
    parsed = weights.parse(text, runtime, Path("/models"))

    assert (parsed.kind, parsed.location) == (kind, location)


def snapshot(cache: Path, repo: str) -> Path:
    folder = cache / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    return folder / "snapshots" / "abc"


def test_a_downloaded_repository_is_on_disk_when_every_shard_is(tmp_path: Path) -> None:
    folder = snapshot(tmp_path, "org/m")
    make(folder, "config.json", "one.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    before = weights.on_disk(Weights("repo", "org/m"), tmp_path)
    make(folder, "two.safetensors")
    after = weights.on_disk(Weights("repo", "org/m"), tmp_path)

    assert (before.present, after.present, after.path) == (False, True, folder)


def test_of_a_gguf_repository_the_named_quantization_counts(tmp_path: Path) -> None:
    folder = snapshot(tmp_path, "org/m-GGUF")
    make(folder, "m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "mmproj-m-f16.gguf")

    assert weights.on_disk(Weights("repo", "org/m-GGUF:Q4_K_M"), tmp_path) == OnDisk(
        present=True, path=folder / "m-Q4_K_M.gguf", size_bytes=10
    )
    assert weights.on_disk(Weights("repo", "org/m-GGUF:Q8_0"), tmp_path).present is False
    assert weights.on_disk(Weights("repo", "org/m-GGUF:Q4_K"), tmp_path).present is False


@pytest.mark.parametrize("kind", ["path", "repo"])
def test_what_was_never_there_is_not_on_disk(tmp_path: Path, kind: str) -> None:
    wanted = Weights("repo", "org/none") if kind == "repo" else Weights("path", str(tmp_path / "none.gguf"))

    found = weights.on_disk(wanted, tmp_path)

    assert (found.present, found.size_bytes) == (False, None)


def test_only_ollama_knows_what_ollama_has(tmp_path: Path) -> None:
    assert weights.on_disk(Weights("name", "gemma3:4b"), tmp_path).present is None
