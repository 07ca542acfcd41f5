"""The only way into the daemon from outside: one method per route, errors as `errors.*`.

Used by the terminal, the command line and scripts.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self, TypeVar
from urllib.parse import quote

import httpx
from httpx_sse import ServerSentEvent, aconnect_sse
from pydantic import BaseModel

from footplate_daemon import errors, wire, wire_batches, wire_benchmarks

Shape = TypeVar("Shape", bound=BaseModel)

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
"""For calls that answer at once; streams have no limit."""
UPLOAD = httpx.Timeout(600.0, connect=CONNECT_SECONDS)
DOWNLOAD_PIECE = 1024 * 1024


class FootplateClient:
    """A connection pool to one daemon; use it as `async with`, or call `aclose`.

    Every method raises a subclass of `errors.FootplateError`: what the daemon said, or
    `DaemonUnreachable` when nobody answers.
    """

    def __init__(self, socket_path: Path, *, host: str | None = None) -> None:
        """`host` is where the daemon is, when its socket is forwarded from another machine."""
        self.socket_path = socket_path
        self._host = host
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket_path)),
            base_url="http://footplate",
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def health(self) -> wire.Health:
        """`GET /health`."""
        return await self._get("/health", wire.Health)

    async def deep_health(self) -> wire.DeepHealth:
        """`GET /health/deep`: every part probed; one that failed is in the answer, and no error."""
        try:
            response = await self._http.get("/health/deep")
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        body = _body(response)
        if isinstance(body, dict) and "parts" in body:
            return wire.DeepHealth.model_validate(body)
        raise errors.from_json(body, response.status_code)

    async def metrics(self) -> str:
        """`GET /metrics`: what a Prometheus server would fetch."""
        return (await self._response("GET", "/metrics")).text

    async def status(self) -> wire.Status:
        """`GET /api/v1/status`."""
        return await self._get("/api/v1/status", wire.Status)

    async def models(self) -> list[wire.ModelInfo]:
        """`GET /api/v1/models`."""
        body = await self._json("GET", "/api/v1/models")
        return [wire.ModelInfo.model_validate(entry) for entry in body["models"]]

    async def explain(
        self, name: str, runtime: str | None = None, preset: str | None = None
    ) -> wire.Explanation:
        """`GET /api/v1/models/{name}/explain`: what would be started, and what its profile comes to there."""
        params = _given(runtime=runtime, preset=preset)
        body = await self._json("GET", f"/api/v1/models/{quote(name, safe='')}/explain", params=params)
        return wire.Explanation.model_validate(body)

    async def plan(
        self, name: str, runtime: str | None = None, preset: str | None = None, context: int | None = None
    ) -> wire.Plan:
        """`GET /api/v1/plan`: what a switch would do; nothing is done."""
        params = _given(name=name, runtime=runtime, preset=preset, context=context)
        return wire.Plan.model_validate(await self._json("GET", "/api/v1/plan", params=params))

    async def config(self) -> dict[str, Any]:
        """`GET /config`: the configuration in force, secrets masked."""
        found: dict[str, Any] = await self._json("GET", "/config")
        return found

    async def reload(self) -> wire.Status:
        """`POST /api/v1/reload`: take up a changed config.toml; `Invalid` has all mistakes in its details."""
        return await self._post("/api/v1/reload", None, wire.Status)

    async def activate(self, wish: wire.SwitchWish, *, wait: bool = False) -> wire.Switch:
        """`POST /api/v1/models/activate`: begin a switch; with `wait`, give it when it has ended."""
        return await self._begin_switch("/api/v1/models/activate", wish, wait=wait)

    async def activate_runtime(self, wish: wire.RuntimeWish, *, wait: bool = False) -> wire.Switch:
        """`POST /api/v1/system/llm-servers/active`: without a model, the one last used on the runtime."""
        return await self._begin_switch("/api/v1/system/llm-servers/active", wish, wait=wait)

    async def switches(self, limit: int = 20) -> list[wire.Switch]:
        """`GET /api/v1/switches`: those that have ended, newest first."""
        body = await self._json("GET", "/api/v1/switches", params={"limit": limit})
        return [wire.Switch.model_validate(entry) for entry in body["switches"]]

    async def switch(self, switch_id: int) -> wire.Switch:
        """`GET /api/v1/switches/{id}`."""
        return await self._get(f"/api/v1/switches/{switch_id}", wire.Switch)

    async def cancel_switch(self, switch_id: int) -> wire.Switch:
        """`DELETE /api/v1/switches/{id}`: end it, and go back to what was active before."""
        return wire.Switch.model_validate(await self._json("DELETE", f"/api/v1/switches/{switch_id}"))

    async def apply_remedy(self, switch_id: int, number: int, *, wait: bool = False) -> wire.Switch:
        """`POST …/remedies/{n}`: the switch that tries it; `Conflict` says what is for the user to do."""
        return await self._begin_switch(f"/api/v1/switches/{switch_id}/remedies/{number}", None, wait=wait)

    async def stop_engine(self, name: str) -> wire.Status:
        """`POST /api/v1/system/llm-servers/{name}/stop`: let go of an engine or variant; does not wait."""
        return await self._post(f"/api/v1/system/llm-servers/{quote(name)}/stop", None, wire.Status)

    async def engine_log(self, name: str, lines: int = 100) -> str:
        """`GET /api/v1/system/llm-servers/{name}/logs`: the last lines of an engine's log."""
        path = f"/api/v1/system/llm-servers/{quote(name)}/logs"
        return (await self._response("GET", path, params={"lines": lines})).text

    async def logs(self) -> list[wire.LogInfo]:
        """`GET /api/v1/logs`: the daemon's, the access log, and one for each engine that ever ran."""
        body = await self._json("GET", "/api/v1/logs")
        return [wire.LogInfo.model_validate(entry) for entry in body["logs"]]

    async def log_page(self, name: str, lines: int = 1000, before: str | None = None) -> wire.LogPage:
        """`GET /api/v1/logs/{name}`: the last lines, or those before the `begin` of a page."""
        params = _given(lines=lines, before=before)
        return wire.LogPage.model_validate(
            await self._json("GET", f"/api/v1/logs/{quote(name)}", params=params)
        )

    async def follow_log(
        self, name: str, lines: int = 1000, after: str | None = None
    ) -> AsyncIterator[wire.LogPage]:
        """`GET /api/v1/logs/{name}/follow`: the last lines, or what came after an `end`; then what comes."""
        params = _given(lines=lines, after=after)
        async with self._events(f"/api/v1/logs/{quote(name)}/follow", params=params) as events:
            async for event in events:
                if event.event == "page":
                    yield wire.LogPage.model_validate_json(event.data)

    async def keys(self) -> list[wire.ApiKey]:
        """`GET /api/v1/keys`: the oldest first, the revoked ones too."""
        body = await self._json("GET", "/api/v1/keys")
        return [wire.ApiKey.model_validate(entry) for entry in body["keys"]]

    async def create_key(self, wish: wire.ApiKeyWish) -> wire.NewApiKey:
        """`POST /api/v1/keys`: the one answer that holds the key's secret."""
        return await self._post("/api/v1/keys", wish, wire.NewApiKey)

    async def revoke_key(self, name: str) -> wire.ApiKey:
        """`DELETE /api/v1/keys/{name}`: by name or prefix; of a whole secret only the prefix is sent."""
        if name.startswith(wire.KEY_START):
            name = name[: wire.KEY_PREFIX_LENGTH]
        body = await self._json("DELETE", f"/api/v1/keys/{quote(name, safe='')}")
        return wire.ApiKey.model_validate(body)

    async def exchanges(self, wanted: wire.ExchangeFilter | None = None) -> list[wire.Exchange]:
        """`GET /api/v1/exchanges`: newest first, those under way among them."""
        body = await self._json("GET", "/api/v1/exchanges", params=_asked(wanted))
        return [wire.Exchange.model_validate(entry) for entry in body["exchanges"]]

    async def exchange(self, exchange_id: int) -> wire.ExchangeWhole:
        """`GET /api/v1/exchanges/{id}`: with its bodies, where they are kept."""
        return await self._get(f"/api/v1/exchanges/{exchange_id}", wire.ExchangeWhole)

    async def follow_exchanges(
        self, wanted: wire.ExchangeFilter | None = None
    ) -> AsyncIterator[wire.Exchange]:
        """`GET /api/v1/exchanges/follow`: the last, oldest first, then each that begins, runs or ends."""
        async with self._events("/api/v1/exchanges/follow", params=_asked(wanted)) as events:
            async for event in events:
                if event.event == "exchange":
                    yield wire.Exchange.model_validate_json(event.data)

    async def cancel_exchange(self, exchange_id: int) -> wire.Exchange:
        """`POST /api/v1/exchanges/{id}/cancel`: as if its client had left; `Conflict` when it has ended."""
        return await self._post(f"/api/v1/exchanges/{exchange_id}/cancel", None, wire.Exchange)

    async def replay_exchange(
        self, exchange_id: int, *, runtime: str | None = None, variant: str | None = None
    ) -> wire.Replay:
        """`POST /api/v1/exchanges/{id}/replay`: ask the same again, and wait for the answer."""
        path = f"/api/v1/exchanges/{exchange_id}/replay"
        patience = httpx.Timeout(None, connect=CONNECT_SECONDS)
        params = _given(runtime=runtime, variant=variant)
        return wire.Replay.model_validate(await self._json("POST", path, params=params, timeout=patience))

    async def start_benchmark(self, wish: wire_benchmarks.BenchmarkWish) -> wire_benchmarks.BenchmarkRun:
        """`POST /api/v1/benchmark`: begin a run, or queue it behind those before; it needs no follower."""
        return await self._post("/api/v1/benchmark", wish, wire_benchmarks.BenchmarkRun)

    async def benchmark_runs(
        self, limit: int = 50, before: int | None = None, purpose: wire_benchmarks.Purpose | None = None
    ) -> wire_benchmarks.BenchmarkPage:
        """`GET /api/v1/benchmark`: newest first; those that follow a page with its `before`."""
        params = _given(limit=limit, before=before, purpose=purpose)
        return wire_benchmarks.BenchmarkPage.model_validate(
            await self._json("GET", "/api/v1/benchmark", params=params)
        )

    async def benchmark_run(
        self, run_id: int, *, records: bool = False, cell: int | None = None
    ) -> wire_benchmarks.BenchmarkRun:
        """`GET /api/v1/benchmark/{id}`: with `records` every request, of one `cell` if that is given."""
        params = _given(records=1 if records else None, cell=cell)
        return wire_benchmarks.BenchmarkRun.model_validate(
            await self._json("GET", f"/api/v1/benchmark/{run_id}", params=params)
        )

    async def follow_benchmark(
        self, run_id: int
    ) -> AsyncIterator[wire_benchmarks.BenchmarkRun | wire_benchmarks.LivePoint]:
        """`GET …/{id}/events`: the run now and after changes, a point each second; the last is its end."""
        async with self._events(f"/api/v1/benchmark/{run_id}/events") as events:
            async for event in events:
                if event.event == "run":
                    yield wire_benchmarks.BenchmarkRun.model_validate_json(event.data)
                elif event.event == "point":
                    yield wire_benchmarks.LivePoint.model_validate_json(event.data)

    async def cancel_benchmark(self, run_id: int) -> wire_benchmarks.BenchmarkRun:
        """`POST …/{id}/cancel`: what was measured is kept; `Conflict` when it has ended."""
        return await self._post(f"/api/v1/benchmark/{run_id}/cancel", None, wire_benchmarks.BenchmarkRun)

    async def delete_benchmark(self, run_id: int) -> None:
        """`DELETE /api/v1/benchmark/{id}`: for good; `Conflict` while it waits or runs."""
        await self._response("DELETE", f"/api/v1/benchmark/{run_id}")

    async def follow_status(self) -> AsyncIterator[wire.Status]:
        """Yield the status now and whenever it changes, until the connection ends."""
        async with self._events("/api/v1/events") as events:
            async for event in events:
                if event.event == "status":
                    yield wire.Status.model_validate_json(event.data)

    async def gpu(self) -> wire.GpuSnapshot:
        """`GET /api/v1/gpu`."""
        return wire.GpuSnapshot.model_validate(await self._json("GET", "/api/v1/gpu"))

    async def gpu_history(self, seconds: float = 600.0) -> wire.GpuHistory:
        """`GET /api/v1/gpu/history`: what was read in so many seconds before now."""
        params = {"seconds": seconds}
        return wire.GpuHistory.model_validate(await self._json("GET", "/api/v1/gpu/history", params=params))

    async def follow_gpu(self) -> AsyncIterator[wire.GpuSnapshot]:
        """Yield the gauges now and whenever they were read, once a second, until the connection ends."""
        async with self._events("/api/v1/events", params={"topic": "gpu"}) as events:
            async for event in events:
                if event.event == "gpu":
                    yield wire.GpuSnapshot.model_validate_json(event.data)

    async def follow_sessions(self) -> AsyncIterator[wire.SessionsChanged]:
        """Yield once, and whenever the list of sessions is not what it was, until the connection ends."""
        async with self._events("/api/v1/events", params={"topic": "sessions"}) as events:
            async for event in events:
                if event.event == "sessions":
                    yield wire.SessionsChanged.model_validate_json(event.data)

    async def create_session(self, wish: wire.SessionWish | None = None) -> wire.Session:
        """`POST /api/v1/sessions`."""
        return await self._post("/api/v1/sessions", wish or wire.SessionWish(), wire.Session)

    async def sessions(self, limit: int = 50) -> list[wire.Session]:
        """`GET /api/v1/sessions`: the most recently used first."""
        return list((await self.session_page(limit)).sessions)

    async def session_page(self, limit: int = 50, before: str | None = None) -> wire.SessionPage:
        """`GET /api/v1/sessions`: those that follow a page, with its `before`."""
        params = _given(limit=limit, before=before)
        return wire.SessionPage.model_validate(await self._json("GET", "/api/v1/sessions", params=params))

    async def search(self, words: str, limit: int = 20) -> list[wire.SearchHit]:
        """`GET /api/v1/search`: the best places first; the last word may be the beginning of one."""
        body = await self._json("GET", "/api/v1/search", params={"q": words, "limit": limit})
        return [wire.SearchHit.model_validate(entry) for entry in body["hits"]]

    async def session(
        self, session_id: str, *, first: int | None = None, limit: int | None = None, last: int | None = None
    ) -> wire.SessionWithTurns:
        """`GET /api/v1/sessions/{id}`: whole, or `limit` turns from number `first`, or the `last` ones."""
        params = _given(limit=limit, last=last) | ({} if first is None else {"from": first})
        body = await self._json("GET", _session(session_id), params=params)
        return wire.SessionWithTurns.model_validate(body)

    async def change_session(self, session_id: str, change: wire.SessionChange) -> wire.Session:
        """`PATCH /api/v1/sessions/{id}`: what was not set stays as it is."""
        body = change.model_dump(exclude_unset=True)
        return wire.Session.model_validate(await self._json("PATCH", _session(session_id), json=body))

    async def rename_session(self, session_id: str, title: str) -> wire.Session:
        """`PATCH /api/v1/sessions/{id}`, the title alone."""
        body = await self._json("PATCH", _session(session_id), json={"title": title})
        return wire.Session.model_validate(body)

    async def fork_session(self, session_id: str, wish: wire.ForkWish) -> wire.Session:
        """`POST /api/v1/sessions/{id}/fork`: a new session of copies of its first turns."""
        return await self._post(f"{_session(session_id)}/fork", wish, wire.Session)

    async def delete_session(self, session_id: str) -> None:
        """`DELETE /api/v1/sessions/{id}`: the session with its turns; `restore_session` brings it back."""
        await self._response("DELETE", _session(session_id))

    async def restore_session(self, session_id: str) -> wire.Session:
        """`POST /api/v1/sessions/{id}/restore`: within ten minutes after it was deleted."""
        return await self._post(f"{_session(session_id)}/restore", None, wire.Session)

    async def export_session(self, session_id: str, format: Literal["markdown", "json"] = "markdown") -> str:  # noqa: A002 - the API's name
        """`GET /api/v1/sessions/{id}/export`: Markdown to read, or JSON to keep."""
        params = {"format": format}
        return (await self._response("GET", f"{_session(session_id)}/export", params=params)).text

    async def import_session(self, exported: str | bytes) -> wire.Session:
        """`POST /api/v1/sessions/import`: what was exported as JSON; `Invalid` names a wrong field."""
        headers = {"Content-Type": "application/json"}
        response = await self._response("POST", "/api/v1/sessions/import", content=exported, headers=headers)
        return wire.Session.model_validate(response.json())

    async def ask(self, session_id: str, wish: wire.TurnWish) -> wire.Turn:
        """`POST /api/v1/sessions/{id}/turns`: the stored turn; its answer comes by `follow_turn`."""
        return await self._post(f"/api/v1/sessions/{session_id}/turns", wish, wire.Turn)

    async def stop_turn(self, session_id: str, number: int) -> wire.Turn:
        """`POST …/turns/{n}/stop`: end the generation, keep what came."""
        return await self._post(f"/api/v1/sessions/{session_id}/turns/{number}/stop", None, wire.Turn)

    async def follow_turn(
        self, session_id: str, number: int, *, last_event_id: str | None = None
    ) -> AsyncIterator[tuple[str, wire.TurnDelta | wire.Turn]]:
        """Yield `(event id, delta or turn)`; the last one is a finished turn.

        The first event after a fresh attach is the turn as it stands. After a cut, pass the last
        event id seen: only what is missing comes.
        """
        path = f"/api/v1/sessions/{session_id}/turns/{number}/events"
        async with self._events(path, last_event_id) as events:
            async for event in events:
                if event.event == "delta":
                    yield event.id, wire.TurnDelta.model_validate_json(event.data)
                elif event.event == "turn":
                    yield event.id, wire.Turn.model_validate_json(event.data)

    async def chat(self, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """`POST /v1/chat/completions` with `stream`: yield each chunk as parsed JSON."""
        request = {**body, "stream": True, "stream_options": {"include_usage": True}}
        async with self._events("/v1/chat/completions", method="POST", json=request) as events:
            async for event in events:
                if event.data == "[DONE]":
                    return
                chunk = json.loads(event.data)
                if "error" in chunk:
                    raise errors.from_json(chunk, 200)
                yield chunk

    async def upload_file(
        self,
        path: Path,
        purpose: str = "batch",
        *,
        filename: str | None = None,
        expires_after_seconds: int | None = None,
        told: Callable[[int], object] | None = None,
    ) -> wire_batches.File:
        """`POST /v1/files`, sent from the disk as it is read; `told` hears how many bytes are sent so far.

        Raise `Invalid` when the file cannot be read, `TooLarge` when it is larger than files may be.
        """
        form = {"purpose": purpose}
        if expires_after_seconds is not None:
            form |= {
                "expires_after[anchor]": "created_at",
                "expires_after[seconds]": str(expires_after_seconds),
            }
        try:
            with path.open("rb") as source:
                content: Any = _ReadFile(source, told) if told is not None else source
                files = {"file": (filename or path.name, content, "application/octet-stream")}
                body = await self._json("POST", "/v1/files", data=form, files=files, timeout=UPLOAD)
        except OSError as error:
            raise errors.Invalid(
                f"{path} cannot be read: {error.strerror or error}.", hint="Name a file that you may read."
            ) from error
        return wire_batches.File.model_validate(body)

    async def files(
        self, *, purpose: str | None = None, limit: int | None = None, after: str | None = None
    ) -> wire_batches.FileList:
        """`GET /v1/files`: the newest first."""
        params = _given(purpose=purpose, limit=limit, after=after)
        return wire_batches.FileList.model_validate(await self._json("GET", "/v1/files", params=params))

    async def file(self, file_id: str) -> wire_batches.File:
        """`GET /v1/files/{id}`."""
        return await self._get(f"/v1/files/{quote(file_id, safe='')}", wire_batches.File)

    async def delete_file(self, file_id: str) -> wire_batches.FileDeleted:
        """`DELETE /v1/files/{id}`; a batch that is under way keeps what it needs of it."""
        body = await self._json("DELETE", f"/v1/files/{quote(file_id, safe='')}")
        return wire_batches.FileDeleted.model_validate(body)

    async def file_content(self, file_id: str) -> AsyncIterator[bytes]:
        """`GET /v1/files/{id}/content`: pieces of the file as they come."""
        path = f"/v1/files/{quote(file_id, safe='')}/content"
        try:
            async with self._http.stream("GET", path, timeout=UPLOAD) as response:
                if response.is_error:
                    await response.aread()
                    raise errors.from_json(_body(response), response.status_code)
                async for piece in response.aiter_bytes(DOWNLOAD_PIECE):
                    yield piece
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    async def create_batch(self, wish: wire_batches.BatchWish) -> wire_batches.Batch:
        """`POST /v1/batches`: `validating` at first; what is wrong with its lines is found after that."""
        return await self._post("/v1/batches", wish, wire_batches.Batch)

    async def batches(self, *, limit: int = 20, after: str | None = None) -> wire_batches.BatchList:
        """`GET /v1/batches`: the newest first."""
        params = _given(limit=limit, after=after)
        return wire_batches.BatchList.model_validate(await self._json("GET", "/v1/batches", params=params))

    async def batch(self, batch_id: str) -> wire_batches.Batch:
        """`GET /v1/batches/{id}`."""
        return await self._get(f"/v1/batches/{quote(batch_id, safe='')}", wire_batches.Batch)

    async def cancel_batch(self, batch_id: str) -> wire_batches.Batch:
        """`POST /v1/batches/{id}/cancel`; `Conflict` when it has ended."""
        return await self._post(f"/v1/batches/{quote(batch_id, safe='')}/cancel", None, wire_batches.Batch)

    async def batch_progress(self, batch_id: str) -> wire_batches.BatchProgress:
        """`GET /api/v1/batches/{id}`: what OpenAI's batch does not tell, too."""
        return await self._get(_batch(batch_id), wire_batches.BatchProgress)

    async def batches_progress(self, limit: int = 50) -> tuple[wire_batches.BatchProgress, ...]:
        """`GET /api/v1/batches`: the newest first."""
        body = await self._json("GET", "/api/v1/batches", params={"limit": limit})
        return wire_batches.BatchProgressList.model_validate(body).batches

    async def follow_batch(self, batch_id: str) -> AsyncIterator[wire_batches.BatchProgress]:
        """Yield a batch now and whenever it has come further; the last one has ended."""
        async with self._events(f"{_batch(batch_id)}/events") as events:
            async for event in events:
                if event.event == "batch":
                    yield wire_batches.BatchProgress.model_validate_json(event.data)

    async def follow_batches(self, limit: int = 50) -> AsyncIterator[tuple[wire_batches.BatchProgress, ...]]:
        """Yield the newest batches now and whenever one has come further, until the connection ends."""
        async with self._events("/api/v1/batches/events", params={"limit": limit}) as events:
            async for event in events:
                if event.event == "batches":
                    yield wire_batches.BatchProgressList.model_validate_json(event.data).batches

    async def retry_failed_batch(
        self, batch_id: str, wish: wire_batches.RetryWish | None = None
    ) -> wire_batches.Batch:
        """`POST /api/v1/batches/{id}/retry-failed`: a new batch of the lines that failed.

        Raise `Conflict` when none has, or while the batch is under way; `NotFound` if its file is gone.
        """
        path = f"{_batch(batch_id)}/retry-failed"
        return await self._post(path, wish or wire_batches.RetryWish(), wire_batches.Batch)

    async def compare_batches(
        self, first: str, second: str, *, from_line: int = 1, limit: int = 50
    ) -> wire_batches.BatchComparison:
        """`GET /api/v1/batches/compare`: what two batches answered to the same lines, a page of them."""
        params = _given(first=first, second=second, from_line=from_line, limit=limit)
        body = await self._json("GET", "/api/v1/batches/compare", params=params, timeout=UPLOAD)
        return wire_batches.BatchComparison.model_validate(body)

    async def _get(self, path: str, shape: type[Shape]) -> Shape:
        return shape.model_validate(await self._json("GET", path))

    async def _post(self, path: str, wish: BaseModel | None, shape: type[Shape]) -> Shape:
        body = None if wish is None else wish.model_dump(exclude_none=True)
        return shape.model_validate(await self._json("POST", path, json=body))

    async def _begin_switch(self, path: str, wish: BaseModel | None, *, wait: bool) -> wire.Switch:
        body = None if wish is None else wish.model_dump(exclude_none=True)
        patience = httpx.Timeout(None if wait else ANSWER_SECONDS, connect=CONNECT_SECONDS)
        params = {"wait": "1"} if wait else {}
        found = await self._json("POST", path, json=body, params=params, timeout=patience)
        return wire.Switch.model_validate(found)

    async def _json(self, method: str, path: str, **arguments: Any) -> Any:
        return (await self._response(method, path, **arguments)).json()

    async def _response(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = await self._http.request(method, path, **arguments)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if response.is_error:
            raise errors.from_json(_body(response), response.status_code)
        return response

    @asynccontextmanager
    async def _events(
        self,
        path: str,
        last_event_id: str | None = None,
        *,
        method: str = "GET",
        json: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[AsyncIterator[ServerSentEvent]]:
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        limits = httpx.Timeout(None, connect=CONNECT_SECONDS)
        try:
            async with aconnect_sse(
                self._http, method, path, headers=headers, json=json, params=params, timeout=limits
            ) as source:
                if source.response.is_error:
                    await source.response.aread()
                    raise errors.from_json(_body(source.response), source.response.status_code)
                yield source.aiter_sse()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.TransportError) -> errors.FootplateError:
        if isinstance(error, httpx.ReadTimeout):
            return errors.TimedOut("The daemon did not answer in time.", hint="See: footplate logs")
        if self._host:
            return errors.DaemonUnreachable(
                f"The connection to Footplate on {self._host} was cut.",
                hint=f"See: footplate --host {self._host} status",
            )
        if isinstance(error, httpx.ConnectError):
            return errors.DaemonUnreachable(
                f"No Footplate daemon answers on {self.socket_path}.", hint="Start it: footplate up"
            )
        return errors.DaemonUnreachable(
            "The connection to the Footplate daemon was cut.", hint="See: footplate status; footplate logs"
        )


class _ReadFile:
    """A file that tells how far it is read."""

    def __init__(self, file: BinaryIO, told: Callable[[int], object]) -> None:
        self._file = file
        self._told = told

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self._told(self._file.tell())
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()


def _batch(batch_id: str) -> str:
    return f"/api/v1/batches/{quote(batch_id, safe='')}"


def _session(session_id: str) -> str:
    return f"/api/v1/sessions/{quote(session_id, safe='')}"


def _given(**params: str | int | None) -> dict[str, str | int]:
    return {name: value for name, value in params.items() if value is not None}


def _asked(wanted: wire.ExchangeFilter | None) -> dict[str, Any]:
    return wanted.model_dump(exclude_none=True) if wanted else {}


def _body(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return response.text
