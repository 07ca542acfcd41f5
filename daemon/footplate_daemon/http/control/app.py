"""The control app: its routes, module by module, and the one shape of its errors."""

import logging

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from footplate_daemon import __version__, errors
from footplate_daemon.errors import INTERNAL, FootplateError, Invalid, NotFound
from footplate_daemon.http.answers import retry_headers
from footplate_daemon.http.control.batches import batch_routes
from footplate_daemon.http.control.benchmarks import benchmark_routes
from footplate_daemon.http.control.daemon import daemon_routes
from footplate_daemon.http.control.engines import engine_routes
from footplate_daemon.http.control.exchanges import exchange_routes
from footplate_daemon.http.control.history import history_routes
from footplate_daemon.http.control.keys import key_routes
from footplate_daemon.http.control.logs import log_routes
from footplate_daemon.http.control.parts import ControlParts
from footplate_daemon.http.control.switches import switch_routes

logger = logging.getLogger(__name__)


def control_app(parts: ControlParts) -> FastAPI:
    """Build the app; its routes are grouped by what they are about."""
    app = FastAPI(title="Footplate control", version=__version__, docs_url=None, redoc_url=None)
    _answer_errors(app)
    daemon_routes(app, parts)
    engine_routes(app, parts)
    log_routes(app, parts)
    switch_routes(app, parts)
    history_routes(app, parts)
    exchange_routes(app, parts)
    key_routes(app, parts)
    batch_routes(app, parts)
    benchmark_routes(app, parts)
    return app


def _answer_errors(app: FastAPI) -> None:
    """Give every error its one shape; a mistake of ours is logged whole and answered as `internal`."""

    @app.exception_handler(FootplateError)
    async def ours(_: Request, error: Exception) -> Response:
        assert isinstance(error, FootplateError)  # noqa: S101 - Starlette hands over what was asked for
        return _error_response(error)

    @app.exception_handler(RequestValidationError)
    async def bad_request(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        return _error_response(_invalid(error))

    @app.exception_handler(HTTPException)
    async def by_router(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        if error.status_code == 400:
            return _error_response(Invalid("The body cannot be read as JSON.", hint="Send one JSON object."))
        known = NotFound(
            f"There is no {request.method} {request.url.path} here.",
            hint="GET /openapi.json lists the calls.",
        )
        return _error_response(known, status=error.status_code)

    @app.exception_handler(Exception)
    async def mistake(request: Request, error: Exception) -> Response:
        logger.error("a request failed", exc_info=error, extra={"path": request.url.path})
        return _error_response(INTERNAL)


def _error_response(error: FootplateError, status: int | None = None) -> Response:
    headers = {name.decode(): value.decode() for name, value in retry_headers(error)}
    return JSONResponse(errors.to_json(error), status_code=status or error.http_status, headers=headers)


def _invalid(error: RequestValidationError) -> Invalid:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in {"body", "query", "path"}]
    field = ".".join(place)
    message = f"{field}: {first['msg']}." if field else f"The request is wrong: {first['msg']}."
    return Invalid(message, param=field or None, hint="GET /openapi.json describes every call.")
