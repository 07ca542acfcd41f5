"""The daemon itself: who it is, how it is, what it was told, and everything that changes."""

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response

from footplate_daemon import wire
from footplate_daemon.http.control.parts import ControlParts
from footplate_daemon.http.control.streams import event_stream, numbered

STATUS_SECONDS = 0.05
"""Followers of the status get at most one event in this time."""
SESSIONS_SECONDS = 0.25
"""The same for those who follow the list of sessions."""


def daemon_routes(app: FastAPI, parts: ControlParts) -> None:
    """Add the routes about the daemon."""

    @app.get("/")
    def identity() -> wire.Identity:
        return parts.identity

    @app.get("/health")
    async def health() -> wire.Health:
        return wire.Health(version=parts.identity.version, pid=parts.identity.pid)

    @app.get("/health/deep", responses={503: {"model": wire.DeepHealth}})
    async def deep_health(response: Response) -> wire.DeepHealth:
        found = await parts.deep_look.look()
        response.status_code = 200 if found.status == "ok" else 503
        return found

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        body, content_type = parts.metrics.render(request.headers.get("accept"))
        return Response(body, media_type=content_type)

    @app.get("/config")
    async def config() -> dict[str, Any]:
        return parts.config()

    @app.post("/api/v1/reload")
    async def reload() -> wire.Status:
        return await parts.reload()

    @app.get("/api/v1/status")
    async def status() -> wire.Status:
        return parts.status.snapshot()

    @app.get("/api/v1/gpu")
    async def gpu() -> wire.GpuSnapshot:
        return await parts.sampler.snapshot()

    @app.get("/api/v1/gpu/history")
    async def gpu_history(seconds: Annotated[float, Query(gt=0)] = 600.0) -> wire.GpuHistory:
        return parts.sampler.history(seconds)

    @app.get("/api/v1/events")
    async def events(topic: Literal["status", "gpu", "sessions"] = "status") -> Response:
        if topic == "gpu":
            return event_stream(numbered("gpu", parts.sampler.follow()), parts.closing)
        if topic == "sessions":
            changes = parts.sessions.changes.follow(SESSIONS_SECONDS)
            return event_stream(numbered("sessions", changes), parts.closing)
        return event_stream(numbered("status", parts.status.follow(STATUS_SECONDS)), parts.closing)
