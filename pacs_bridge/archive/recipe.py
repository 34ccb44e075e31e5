"""What a result was made with, beside its source: a change of it makes results stale."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from inference.model_store import ModelStore, locate
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.config.routes import RouteConfig

_LIMITS: Final = "rules"
_SINGLE: Final = "fp32"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A model and all settings that change what it makes of a series."""

    model: str
    model_digest: str  #: SHA-256 of the weights
    digest: str  #: of everything
    settings: str = ""  #: SHA-256 of what a configuration says about results
    #: SHA-256 of all that a result rests on: ``digest`` without the limits that only select.
    lasting: str = ""
    precision: str = "auto"  #: as asked for; auto: what the device does fast

    def is_made_so(self, precision: str) -> bool:
        """Whether a result of this arithmetic is what is wanted; empty: it does not say.

        A device that lacks what was asked for computes in single precision: never in less.
        """
        return self.precision != _SINGLE or precision in ("", _SINGLE)


def recipe_of(config: BridgeConfig, route: RouteConfig, stores: Sequence[ModelStore]) -> Recipe:
    """What a route makes of a series.

    Raises
    ------
    ModelError
        ``unknown-model``, ``model-manifest``: as for ``locate``.
    """
    manifest = locate(route.model, stores).manifest(route.model)
    settings = _settings(config, route)
    facts = {"manifest": json.loads(manifest.to_json()), **settings}
    if route.structures:
        from pacs_bridge.models import coarse_model  # with torch, which planning does without

        coarse = coarse_model(manifest, stores)
        facts["coarse"] = coarse and locate(coarse, stores).manifest(coarse).weights_sha256
    lasting = {name: fact for name, fact in facts.items() if name != _LIMITS}
    return Recipe(
        model=route.model,
        model_digest=manifest.weights_sha256,
        digest=_digest(facts),
        settings=_digest(settings),
        lasting=_digest(lasting),
        precision=config.workers.precision,
    )


def settings_digest(config: BridgeConfig, route: RouteConfig) -> str:
    """See ``Recipe.settings``."""
    return _digest(_settings(config, route))


def _settings(config: BridgeConfig, route: RouteConfig) -> dict[str, object]:
    """All but the model, whose weights the result itself names."""
    kinds = sorted(
        {
            kind
            for name in route.destinations
            if (destination := config.destination(name)) is not None
            for kind in destination.kinds
        }
    )
    settings: dict[str, object] = {
        "postprocessing": route.postprocessing.model_dump(mode="json"),
        "precision": config.workers.precision,
        _LIMITS: asdict(config.series.rules()),
        "kinds": kinds,
        "texts": config.results.model_dump(mode="json"),
    }
    if route.structures:  # where all are wanted the digest is what it was without this key
        settings["structures"] = route.structures
    return settings


def _digest(facts: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
