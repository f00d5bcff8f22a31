"""The OpenAPI document of the Connexion applications."""

from __future__ import annotations

from typing import Any

_PATHS = {
    "/items/{item_id}": ("get", "item"),
    "/orders": ("post", "order"),
    "/boom": ("get", "boom"),
    "/stream": ("get", "stream"),
    "/slow": ("get", "slow"),
    "/uni/{name}": ("get", "uni"),
    "/v2/things/{thing_id}": ("get", "thing"),
}


def openapi(module: str) -> dict[str, Any]:
    """Describe the shop whose handlers are in a module."""
    return {
        "openapi": "3.0.0",
        "info": {"title": "Shop", "version": "1"},
        "paths": {
            path: {
                method: {
                    "operationId": f"{module}.{name}",
                    "responses": {"200": {"description": "ok"}},
                    "parameters": [
                        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
                        for part in path.split("/")
                        if part.startswith("{")
                    ],
                }
            }
            for path, (method, name) in _PATHS.items()
        },
    }
