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
    settings: str = ""  #: SHA-256 of what a configuration says about results


def recipe_of(config: BridgeConfig, route: RouteConfig, stores: Sequence[ModelStore]) -> Recipe:
    """What a route makes of a series.

    Raises
    ------
    ModelError
        ``unknown-model``, ``model-manifest``: as for ``locate``.
    """
    manifest = locate(route.model, stores).manifest(route.model)
    settings = _settings(config, route)
    facts = {
        "manifest": json.loads(manifest.to_json()),
        "precision": config.workers.precision,
        **settings,
    }
    return Recipe(route.model, manifest.weights_sha256, _digest(facts), _digest(settings))


def settings_digest(config: BridgeConfig, route: RouteConfig) -> str:
    """See ``Recipe.settings``."""
    return _digest(_settings(config, route))


def _settings(config: BridgeConfig, route: RouteConfig) -> dict[str, object]:
    """All but the model and the arithmetic, which each machine may choose for itself."""
    kinds = sorted(
        {
            kind
            for name in route.destinations
            if (destination := config.destination(name)) is not None
            for kind in destination.kinds
        }
    )
    return {
        "postprocessing": route.postprocessing.model_dump(mode="json"),
        "rules": asdict(config.series.rules()),
        "kinds": kinds,
        "texts": config.results.model_dump(mode="json"),
    }


def _digest(facts: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
