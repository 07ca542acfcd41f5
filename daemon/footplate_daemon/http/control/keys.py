"""API keys: made, listed and revoked. A secret is in one answer only, that of the call that makes it."""

import time

from fastapi import FastAPI, Response

from footplate_daemon import wire
from footplate_daemon.errors import Invalid
from footplate_daemon.http.control.parts import ControlParts
from footplate_daemon.settings import RUNTIMES
from footplate_daemon.store.keys import Key


def key_routes(app: FastAPI, parts: ControlParts) -> None:
    """Add the routes about keys."""
    keys = parts.keys

    @app.get("/api/v1/keys")
    async def list_keys() -> dict[str, list[wire.ApiKey]]:
        return {"keys": [_shape(key) for key in keys.list()]}

    @app.post("/api/v1/keys", status_code=201)
    async def create_key(wish: wire.ApiKeyWish, response: Response) -> wire.NewApiKey:
        models = tuple(dict.fromkeys([await _model(parts, name) for name in wish.models]))
        key, secret = await keys.create(
            wish.name,
            time.time(),
            lifetime_seconds=wish.lifetime_seconds,
            models=models,
            requests_per_minute=wish.requests_per_minute,
        )
        response.headers["Cache-Control"] = "no-store"
        return wire.NewApiKey(**_shape(key).model_dump(), secret=secret)

    @app.delete("/api/v1/keys/{name}")
    async def revoke_key(name: str) -> wire.ApiKey:
        return _shape(await keys.revoke(name, time.time()))


async def _model(parts: ControlParts, name: str) -> str:
    """Give the name under which a key knows a model: the variant's if one is meant, else the model's."""
    if name in RUNTIMES:
        raise Invalid(
            f"{name} is a runtime, a key is for models.", hint="See: footplate models", param="models"
        )
    variant = await parts.find(name, None)
    return variant.name if name.lower() == variant.name.lower() else variant.model


def _shape(key: Key) -> wire.ApiKey:
    return wire.ApiKey(
        name=key.name,
        prefix=key.prefix,
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        last_used_at=key.last_used_at,
        models=key.models,
        requests_per_minute=key.requests_per_minute,
    )
