"""Tables for config.toml of the models that were found, and their way into the file.

`entries` is pure. `add` is the only thing in Footplate that writes into a config.toml that is there already:
at its end, when asked to, leaving the former file beside it.
"""

import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from footplate_daemon import settings
from footplate_daemon.errors import Conflict, Invalid
from footplate_daemon.mistakes import ConfigErrors, dotted
from footplate_daemon.surroundings.facts import CachedModel, Facts, LocalModel

CAPABILITIES = {
    "vision": ("chat", "vision"),
    "embedding": ("embedding",),
    "rerank": ("rerank",),
}
"""What is written for a kind of model; chat goes without saying."""
HEADER = "# Found by `footplate doctor`"


@dataclass(frozen=True)
class Entry:
    """A variant that config.toml does not have yet."""

    model: str
    runtime: str
    weights: str
    where: str
    """Where it was found, for a person."""
    capabilities: tuple[str, ...] = ()
    """Empty: as the runtime assumes."""
    mmproj: str | None = None

    @property
    def toml(self) -> str:
        """The table, as it stands in config.toml."""
        lines = [f"[{dotted(('models', self.model, self.runtime))}]", f"weights = {_text(self.weights)}"]
        if self.mmproj:
            lines.append(f"mmproj = {_text(self.mmproj)}")
        if self.capabilities:
            lines.append(f"capabilities = [{', '.join(map(_text, self.capabilities))}]")
        return "\n".join(lines)


@dataclass(frozen=True)
class Added:
    """What `add` has done."""

    file: Path
    added: tuple[Entry, ...]
    skipped: tuple[Entry, ...]
    """Their names are taken in the file."""
    backup: Path | None
    """The former file; None where there was none, or nothing was added."""


def entries(facts: Facts) -> tuple[Entry, ...]:
    """Give an entry for each model found that is not listed yet, each under a name of its own."""
    taken = set(facts.configuration.names)
    found = []
    for entry in (*_local(facts), *_cached(facts), *_of_ollama(facts)):
        if (entry.runtime, entry.weights) in facts.configuration.weights:
            continue
        name = entry.model.lower()
        if name in taken:
            continue
        taken.add(name)
        found.append(entry)
    return tuple(found)


def add(file: Path, wanted: Sequence[Entry], *, stamp: str) -> Added:
    """Append the entries to a config.toml that loads, and still loads then; make it if there is none.

    Raise `ConfigErrors` where the file has mistakes, `Invalid` where tables cannot be appended to it. `stamp`
    goes into the name of the backup, and nothing that is there is overwritten: `Conflict`.
    """
    file = file.resolve()  # a link to a file kept elsewhere stays a link
    before = _read(file)
    present = {name.lower() for name in settings.parse(before, file).models} if before else set()
    chosen = tuple(entry for entry in wanted if entry.model.lower() not in present)
    skipped = tuple(entry for entry in wanted if entry.model.lower() in present)
    if not chosen:
        return Added(file, (), skipped, None)
    after = _appended(before or b"", chosen, stamp)
    try:
        settings.parse(after, file)
    except ConfigErrors as error:
        raise Invalid(
            f"The entries do not fit into {file}: {error.mistakes[0]}",
            hint="Nothing was changed. Paste what you want yourself: footplate doctor",
        ) from error
    try:
        backup = _back_up(file, before, stamp)
        _replace(file, after)
    except FileExistsError as error:
        raise Conflict(f"There is a backup of this second already: {error.filename}") from error
    except OSError as error:
        raise Invalid(
            f"{file} cannot be written: {error.strerror}.", hint="Mend the folder's permissions."
        ) from error
    return Added(file, chosen, skipped, backup)


def _local(facts: Facts) -> Iterator[Entry]:
    for model in facts.local_models:
        if not model.listed and (model.runtime == "llamacpp" or facts.vllm is not None):
            yield _of_file(model)


def _of_file(model: LocalModel) -> Entry:
    mmproj = str(model.mmproj) if model.mmproj else None
    return Entry(_name(model.name), model.runtime, str(model.path), str(model.path.parent), (), mmproj)


def _cached(facts: Facts) -> Iterator[Entry]:
    for model in facts.cache.models:
        if not model.whole or model.kind == "other":
            continue
        if model.kind == "gguf":
            yield from _cached_ggufs(model)
            continue
        name = _name(model.repo.rpartition("/")[2])
        only_transformers = facts.vllm is None and facts.transformers is not None
        runtime = "transformers" if only_transformers else "vllm"
        yield Entry(name, runtime, model.repo, "the Hugging Face cache", CAPABILITIES.get(model.kind, ()))


def _cached_ggufs(model: CachedModel) -> Iterator[Entry]:
    bare = re.sub(r"[-_.]?gguf$", "", model.repo.rpartition("/")[2], flags=re.IGNORECASE)
    for quantization in model.ggufs:
        suffix = f"-{quantization[1:]}" if quantization and len(model.ggufs) > 1 else ""
        weights = f"{model.repo}{quantization}"
        yield Entry(_name(f"{bare}{suffix}"), "llamacpp", weights, "the Hugging Face cache")


def _of_ollama(facts: Facts) -> Iterator[Entry]:
    if facts.ollama.program is None and facts.ollama.server is None:
        return
    for model in facts.ollama.models:
        name = model.name.removesuffix(":latest")
        kind = "vision" if "vision" in model.capabilities else ""
        if model.capabilities and "completion" not in model.capabilities:
            kind = "embedding" if "embedding" in model.capabilities else ""
        yield Entry(_name(name), "ollama", name, "Ollama", CAPABILITIES.get(kind, ()))


def _name(text: str) -> str:
    """Make a model's name of it: letters, digits and . _ - : + @, the first one a letter or digit."""
    return re.sub(r"[^A-Za-z0-9_.:+@-]+", "-", text).strip("-._:+@") or "model"


def _text(value: str) -> str:
    """Write a TOML string; JSON's escapes are TOML's, but for the one character that JSON leaves."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error.strerror}.", hint="Mend its permissions.") from error


def _appended(before: bytes, chosen: Sequence[Entry], stamp: str) -> bytes:
    newline = "\r\n" if b"\r\n" in before else "\n"
    text = "".join(f"{entry.toml}\n\n" for entry in chosen).rstrip("\n")
    block = f"{HEADER} ({stamp}).\n{text}\n".replace("\n", newline).encode()
    if not before:
        return block
    gap = newline if before.endswith(b"\n") else 2 * newline
    return before + gap.encode() + block


def _back_up(file: Path, before: bytes | None, stamp: str) -> Path | None:
    if before is None:
        return None
    backup = file.with_name(f"{file.name}.before-{stamp}")
    descriptor = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file.stat().st_mode & 0o777)
    with os.fdopen(descriptor, "wb") as copy:
        copy.write(before)
    return backup


def _replace(file: Path, after: bytes) -> None:
    """Write it whole or not at all, with the permissions that it had."""
    file.parent.mkdir(parents=True, exist_ok=True)
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o644
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as fresh:
        place = Path(fresh.name)
        try:
            fresh.write(after)
            fresh.flush()
            os.fsync(fresh.fileno())
            place.chmod(mode)
            place.replace(file)
        except BaseException:
            place.unlink(missing_ok=True)
            raise
