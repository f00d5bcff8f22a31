"""Connexion without Flask: no instrumentation knows it."""

from __future__ import annotations

import connexion
from connexion_shop import boom, item, order, slow, stream, thing, uni  # noqa: F401 - found by their names
from connexion_spec import openapi

app = connexion.AsyncApp(__name__)
app.add_api(openapi(__name__))
