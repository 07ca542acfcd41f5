"""Where the weights of a model are: what lies in the models folders, and what is already on disk.

Looks at the file system and nothing else; changes nothing.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FOLDER_DEPTH = 3
"""How deep models are looked for: `publisher/model/file.gguf` is what other programs leave."""


@dataclass(frozen=True)
class Weights:
    """What an engine loads."""

    kind: Literal["path", "repo", "name", "elsewhere"]
    """A file or folder here, a repository, a name that only the runtime knows, or on another machine."""
    location: str
    """An absolute path, `org/name` (for GGUF with its quantization: `org/name:Q4_K_M`), or the name."""


@dataclass(frozen=True)
class Found:
    """A model that lies in a models folder."""

    name: str
    runtime: Literal["llamacpp", "vllm"]
    path: Path
    """The GGUF file (the first of its parts), or the folder with config.json."""
    mmproj: Path | None = None
    """The picture projector that lies beside it."""


@dataclass(frozen=True)
class OnDisk:
    """Whether weights can be loaded without a download."""

    present: bool | None
    """None where only the runtime knows."""
    path: Path | None = None
    """What an engine can be given to load."""
    size_bytes: int | None = None
    """All that belongs to it, as far as it is there."""


def parse(text: str, runtime: str, models_dir: Path) -> Weights:
    """Read what the operator wrote: `org/name` is a repository, else a path from the models folder on."""
    if runtime == "ollama":
        return Weights("name", text)
    is_repo = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w.-]+)?", text) and not text.endswith(".gguf")
    return Weights("repo", text) if is_repo else Weights("path", str(models_dir / text))


def find(folders: Iterable[Path]) -> tuple[Found, ...]:
    """List the models in the folders, by name; a folder that is not there holds none."""
    found: dict[str, Found] = {}
    for root in folders:
        for folder, files in _walk(root):
            for entry in (*_gguf_models(folder, files, is_root=folder == root), *_hf_models(folder, files)):
                name = entry.name if entry.name not in found else f"{folder.name}-{entry.name}"
                found.setdefault(name, Found(name, entry.runtime, entry.path, entry.mmproj))
    return tuple(found[name] for name in sorted(found))


def on_disk(weights: Weights, hf_cache: Path) -> OnDisk:
    """Say whether the weights are here, whole, and how big they are."""
    match weights.kind:
        case "name" | "elsewhere":
            return OnDisk(present=None)
        case "path":
            return _path_on_disk(Path(weights.location))
        case "repo":
            return _repo_on_disk(weights.location, hf_cache)


def parts(first: Path) -> tuple[Path, ...]:
    """Give every file of a GGUF model in parts, whether it is there or not; the file alone if it is whole."""
    found = _PART.fullmatch(first.name)
    if found is None:
        return (first,)
    stem, count = found["stem"], found["count"]
    return tuple(
        first.with_name(f"{stem}-{number:05}-of-{count}.gguf") for number in range(1, int(count) + 1)
    )


_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_QUANTIZATION = re.compile(r"[-._]?\b(ud-)?(i?q\d\w*|bf16|f16|fp16|f32|mxfp4\w*)$", re.IGNORECASE)


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    for place, folders, files in os.walk(root, followlinks=True):
        folder = Path(place)
        is_deepest = len(folder.relative_to(root).parts) >= FOLDER_DEPTH
        folders[:] = [] if is_deepest else sorted(name for name in folders if not name.startswith("."))
        yield folder, sorted(files)


def _gguf_models(folder: Path, files: Sequence[str], *, is_root: bool) -> Iterator[Found]:
    names = [name for name in files if name.lower().endswith(".gguf") and not name.startswith(".")]
    projectors = [name for name in names if "mmproj" in name.lower()]
    models = [name for name in names if name not in projectors and _is_first_part(name)]
    for name in models:
        stem = _stem(name)
        projector = _projector_of(stem, projectors, is_alone=not is_root or len(models) == 1)
        yield Found(stem, "llamacpp", folder / name, folder / projector if projector else None)


def _is_first_part(name: str) -> bool:
    found = _PART.fullmatch(name)
    return found is None or int(found["number"]) == 1


def _stem(name: str) -> str:
    found = _PART.fullmatch(name)
    return found["stem"] if found else name[: -len(".gguf")]


def _projector_of(stem: str, projectors: Sequence[str], *, is_alone: bool) -> str | None:
    """Choose the projector named for the model, else one named for none if no other model can claim it."""
    named = [name for name in projectors if _family(_stem(name)) == _family(stem)]
    nameless = [name for name in projectors if _family(_stem(name)) in {"", "model"}] if is_alone else []
    # Half precision is what the runtimes recommend; other copies of a projector cost more or lose more.
    by_precision = sorted(
        named or nameless, key=lambda name: ("f16" not in name.lower(), "bf16" in name.lower())
    )
    return by_precision[0] if by_precision else None


def _family(stem: str) -> str:
    """Take `mmproj` and the quantization off a name."""
    bare = _QUANTIZATION.sub("", stem.lower())
    return _QUANTIZATION.sub("", re.sub(r"[-._]?mmproj[-._]?", "", bare)).strip("-._")


def _hf_models(folder: Path, files: Sequence[str]) -> Iterator[Found]:
    if "config.json" in files and any(name.endswith(".safetensors") for name in files):
        yield Found(folder.name, "vllm", folder)


def _path_on_disk(path: Path) -> OnDisk:
    if path.is_dir():
        return OnDisk(_is_whole_folder(path), path, _size(_files_in(path)))
    files = parts(path)
    if all(file.is_file() for file in files):
        return OnDisk(present=True, path=path, size_bytes=_size(files))
    return OnDisk(present=False, path=path, size_bytes=_size(files) or None)


def _repo_on_disk(location: str, hf_cache: Path) -> OnDisk:
    repo, _, quantization = location.partition(":")
    snapshot = _snapshot(hf_cache / f"models--{repo.replace('/', '--')}")
    if snapshot is None:
        return OnDisk(present=False)
    ggufs = sorted(
        file for file in _files_in(snapshot) if file.suffix == ".gguf" and "mmproj" not in file.name
    )
    wanted = [file for file in ggufs if _has_quantization(file, quantization) and _is_first_part(file.name)]
    if wanted:
        return _path_on_disk(wanted[0])
    if quantization or ggufs:
        return OnDisk(present=False)
    return OnDisk(_is_whole_folder(snapshot), snapshot, _size(_files_in(snapshot)))


def _has_quantization(file: Path, quantization: str) -> bool:
    return (
        re.search(rf"(?<![a-z0-9]){re.escape(quantization.lower())}(?![a-z0-9_])", file.name.lower())
        is not None
    )


def _snapshot(folder: Path) -> Path | None:
    """Give the snapshot of the main branch, or the only one there is."""
    try:
        snapshot = folder / "snapshots" / (folder / "refs" / "main").read_text().strip()
    except OSError:
        snapshots = sorted((folder / "snapshots").glob("*/"))
        return snapshots[0] if len(snapshots) == 1 else None
    return snapshot if snapshot.is_dir() else None


def _is_whole_folder(folder: Path) -> bool:
    """Say whether config.json and every file of weights that the index names are there."""
    if not (folder / "config.json").is_file():
        return False
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_bytes())
        names = set(index["weight_map"].values())
    except FileNotFoundError:
        return any(file.is_file() for file in folder.glob("*.safetensors"))
    except (OSError, ValueError, LookupError, AttributeError):
        return False
    return all((folder / name).is_file() for name in names)


def _files_in(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if ".cache" not in file.parts[len(folder.parts) :]]


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.is_file())
