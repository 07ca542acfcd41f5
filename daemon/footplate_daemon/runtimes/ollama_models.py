"""The models of an Ollama: list, fetch, make and delete them, through the official client.

For an operator's commands. Answers to clients never come this way: see `ollama`.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import ollama

from footplate_daemon.errors import EngineFailed, FootplateError, Invalid, NotFound, Unavailable


@dataclass(frozen=True)
class Installed:
    """A model in Ollama's store."""

    name: str
    size_bytes: int
    digest: str
    modified_at: datetime | None
    family: str | None
    parameter_size: str | None
    """As Ollama words it: `4.3B`."""
    quantization: str | None
    """As Ollama words it: `Q4_K_M`, and `unknown` for 32-bit floats."""


@dataclass(frozen=True)
class Running:
    """A model in memory."""

    name: str
    size_bytes: int
    gpu_bytes: int
    context: int | None
    expires_at: datetime | None


@dataclass(frozen=True)
class Shown:
    """What a model is."""

    capabilities: tuple[str, ...]
    """`completion`, `tools`, `vision`, `embedding`, `thinking`, …"""
    context: int | None
    """What it was made for, in tokens."""
    parameters: Mapping[str, str]
    """What its Modelfile sets; a parameter that is set several times has its values in lines."""
    template: str
    details: Mapping[str, Any]
    """`model_info` as Ollama gives it."""


@dataclass(frozen=True)
class Step:
    """How far a pull or a create is."""

    status: str
    """Ollama's words: `pulling 3f2a…`, `verifying sha256 digest`, `success`."""
    completed: int | None = None
    total: int | None = None
    """Bytes, where they are counted."""
    digest: str | None = None

    @property
    def fraction(self) -> float | None:
        """Of this step, 0 to 1, where it tells."""
        return (self.completed or 0) / self.total if self.total else None


class OllamaModels:
    """The store of one server; `async with` closes the connections."""

    def __init__(self, url: str) -> None:
        """Use the server at `http://127.0.0.1:11434`; proxies are for other machines."""
        self._url = url
        self._client = ollama.AsyncClient(url, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]  # the client's own lapse

    async def list(self) -> tuple[Installed, ...]:
        """List what is installed, newest first as Ollama has it."""
        with self._translated():
            found = await self._client.list()
        return tuple(_installed(model) for model in found.models)

    async def ps(self) -> tuple[Running, ...]:
        """List what is in memory; a model that is still loading is not."""
        with self._translated():
            found = await self._client.ps()
        return tuple(
            Running(
                model.name or model.model or "",
                int(model.size or 0),
                int(model.size_vram or 0),
                model.context_length,
                model.expires_at,
            )
            for model in found.models
        )

    async def show(self, name: str) -> Shown:
        """Say what a model is; raise `NotFound`."""
        with self._translated():
            shown = await self._client.show(name)
        details = dict(shown.modelinfo or {})
        return Shown(
            capabilities=tuple(shown.capabilities or ()),
            context=next((value for key, value in details.items() if key.endswith(".context_length")), None),
            parameters=_parameters(shown.parameters or ""),
            template=shown.template or "",
            details=details,
        )

    async def pull(self, name: str, *, insecure: bool = False) -> AsyncIterator[Step]:
        """Fetch a model, telling how far it is; when left, the next pull goes on from there."""
        with self._translated():
            answer = await self._client.pull(name, insecure=insecure, stream=True)
            async for step in _steps(answer):
                yield step

    async def create(
        self,
        name: str,
        *,
        from_model: str | None = None,
        files: Sequence[Path] = (),
        parameters: Mapping[str, Any] | None = None,
        template: str | None = None,
        system: str | None = None,
        quantize: str | None = None,
    ) -> AsyncIterator[Step]:
        """Make a model of another one (nothing is copied) or of GGUF files (it keeps a copy)."""
        with self._translated():
            digests = {}
            for file in files:
                yield Step(f"uploading {file.name}", 0, file.stat().st_size)
                digests[file.name] = await self._client.create_blob(file)
            answer = await self._client.create(
                name,
                from_=from_model,
                files=digests or None,
                parameters=parameters,
                template=template,
                system=system,
                quantize=quantize,
                stream=True,
            )
            async for step in _steps(answer):
                yield step

    async def delete(self, name: str) -> None:
        """Delete a model, out of memory first: afterwards it could not be unloaded any more."""
        with self._translated():
            if any(
                name in {running.name, running.name.removesuffix(":latest")} for running in await self.ps()
            ):
                await self._client.generate(name, keep_alive=0)
            await self._client.delete(name)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Let nothing of the client's leave this module."""
        try:
            yield
        except ollama.ResponseError as error:
            raise _error(error) from error
        except (httpx.ConnectError, ConnectionError) as error:
            raise Unavailable(
                f"No Ollama answers at {self._url}.", hint="footplate switch ollama starts one."
            ) from error
        except httpx.HTTPError as error:
            raise EngineFailed(
                f"Ollama at {self._url} broke off: {error or type(error).__name__}."
            ) from error


async def _steps(answer: AsyncIterator[ollama.ProgressResponse]) -> AsyncIterator[Step]:
    async for step in answer:
        yield Step(step.status or "", step.completed, step.total, step.digest)


def _installed(model: ollama.ListResponse.Model) -> Installed:
    details = model.details
    return Installed(
        name=model.model or "",
        size_bytes=int(model.size or 0),
        digest=model.digest or "",
        modified_at=model.modified_at,
        family=details.family if details else None,
        parameter_size=details.parameter_size if details else None,
        quantization=details.quantization_level if details else None,
    )


def _parameters(text: str) -> dict[str, str]:
    """Read `%-30s value` lines."""
    parameters: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        value = value.strip()
        parameters[name] = f"{parameters[name]}\n{value}" if name in parameters else value
    return parameters


def _error(error: ollama.ResponseError) -> FootplateError:
    """Read the status, and the words of an error that came after a good one (its status is -1)."""
    words = str(error.error)
    if error.status_code == 404 or "not found" in words or "file does not exist" in words:
        return NotFound(
            f"Ollama: {words}", hint="`ollama list` shows what is there; names are like gemma3:4b."
        )
    if error.status_code == 400:
        return Invalid(f"Ollama: {words}")
    return EngineFailed(f"Ollama: {words}")
