"""What a result was made with, beside its source: a change of it makes results stale."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from inference.model_store import ModelStore, locate
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.config.routes import RouteConfig


@dataclass(frozen=True, slots=True)
class Recipe:
    """A model and all settings that change what it makes of a series."""

    model: str
    model_digest: str  #: SHA-256 of the weights
    digest: str  #: of everything


def recipe_of(config: BridgeConfig, route: RouteConfig, stores: Sequence[ModelStore]) -> Recipe:
    """What a route makes of a series.

    Raises
    ------
    ModelError
        ``unknown-model``, ``model-manifest``: as for ``locate``.
    """
    manifest = locate(route.model, stores).manifest(route.model)
    kinds = sorted(
        {
            kind
            for name in route.destinations
            if (destination := config.destination(name)) is not None
            for kind in destination.kinds
        }
    )
    facts = {
        "manifest": json.loads(manifest.to_json()),
        "precision": config.workers.precision,
        "postprocessing": route.postprocessing.model_dump(mode="json"),
        "rules": asdict(config.series.rules()),
        "kinds": kinds,
        "texts": config.results.model_dump(mode="json"),
    }
    text = json.dumps(facts, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Recipe(route.model, manifest.weights_sha256, digest)
