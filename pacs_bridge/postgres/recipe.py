"""What decides the result of a job beside its series: a worker elsewhere must have the same.

Two machines with the same names in their configurations may mean different things by them. A job
carries digests of what its bridge means; a worker that means something else leaves it alone.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from inference.errors import ModelError
from inference.model_store import locate
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.config.sources import DicomwebSourceConfig, DimseSourceConfig, SourceConfig
from pacs_bridge.models import coarse_model, model_stores
from pacs_bridge.queue import JobRequest
from pacs_bridge.report import software_version


@dataclass(frozen=True, slots=True)
class Recipe:
    """Digests, hexadecimal; empty where it is not known."""

    #: SHA-256 of route, kinds of results, rules for series, texts, source, precision and release
    rules: str = ""
    #: SHA-256 of the model's weights; for wanted structures also of those that find them
    weights: str = ""

    def difference(self, other: Recipe) -> str:
        """What differs from another recipe, of that which both know; empty if nothing does."""
        if self.rules and other.rules and self.rules != other.rules:
            return "route, kinds, rules, texts, source, precision or release"
        if self.weights and other.weights and self.weights != other.weights:
            return "weights"
        return ""


class Recipes:
    """The recipes of one configuration, as it was when the process started.

    Parameters
    ----------
    config
        The whole configuration.
    """

    def __init__(self, config: BridgeConfig) -> None:
        self._config = config
        self._weights: dict[tuple[str, bool], str] = {}

    def of(self, request: JobRequest) -> Recipe:
        """The recipe of a job."""
        route = self._config.route(request.route)
        is_found = bool(route is not None and route.structures)
        return Recipe(self._rules(request), self._weights_of(request.model, is_found))

    def _rules(self, request: JobRequest) -> str:
        config, route = self._config, self._config.route(request.route)
        names = request.destinations or (() if route is None else route.destinations)
        destinations = [config.destination(name) for name in names]
        kinds = {kind for each in destinations if each is not None for kind in each.kinds}
        said = {
            "postprocessing": route and route.postprocessing.model_dump(mode="json"),
            "structures": route and route.structures,
            "kinds": sorted(kinds),
            "series": config.series.model_dump(mode="json"),
            "results": config.results.model_dump(mode="json"),
            "source": _meaning(config.source(request.source)),
            "precision": config.workers.precision,
            "release": software_version(),
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def _weights_of(self, model: str, is_found: bool) -> str:
        """Of a model, and of the one that finds for it where structures are wanted."""
        asked = model, is_found
        if asked not in self._weights:
            stores = model_stores(self._config.models.folder)
            try:
                manifest = locate(model, stores).manifest(model)
                weights = manifest.weights_sha256
                if is_found and (coarse := coarse_model(manifest, stores)) is not None:
                    of_both = weights + locate(coarse, stores).manifest(coarse).weights_sha256
                    weights = hashlib.sha256(of_both.encode()).hexdigest()
            except (ModelError, OSError):  # a bridge without models knows names only
                return ""
            self._weights[asked] = weights
        return self._weights[asked]


def _meaning(source: SourceConfig | None) -> tuple[object, ...]:
    """Which archive a source is; not by which door, or with whose secrets, this machine asks it.

    Nothing where the ticket of a job lists its files.
    """
    match source:
        case DicomwebSourceConfig():
            return source.kind, source.url
        case DimseSourceConfig():
            return source.kind, source.ae_title, source.host, source.port
        case _:
            return ()
