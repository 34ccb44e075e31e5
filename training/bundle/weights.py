"""The weights that a bundle runs, with what is known of them.

Three sources, in this order: a file of that name in the bundle's ``models`` folder, an entry
of that name in the same folder as a model store, a model that the package carries. A file
that training wrote has its manifest beside it; where there is a manifest, it decides
spacing and network, and intensity unless the config asks for another.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from inference.errors import ModelError
from inference.intensity import ROBUST_INTENSITY
from inference.manifest import ModelManifest
from inference.model_import import (
    INTENDED_USE,
    PUBLISHED_WEIGHTS,
    published_manifest,
    read_state_dict,
)
from inference.model_store import LoadedModel, ModelStore, embedded_store, locate
from inference.network import NetworkSpec, build_network
from inference.reasons import Reason
from inference.weights import check_weights
from training.bundle.preprocessing import ToNetwork

_log = logging.getLogger(__name__)


def spec_of(network: torch.nn.Module) -> NetworkSpec:
    """Width and depth of a SegResNet that a config made.

    Raises
    ------
    ModelError
        ``model-not-state-dict`` if it is another network than the project's: one input, 105
        outputs, group normalisation.
    """
    try:
        spec = NetworkSpec(
            init_filters=network.init_filters,  # type: ignore[arg-type]
            blocks_down=tuple(network.blocks_down),  # type: ignore[arg-type]
            blocks_up=tuple(network.blocks_up),  # type: ignore[arg-type]
            dropout_prob=network.dropout_prob,  # type: ignore[arg-type]
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(Reason.MODEL_NOT_STATE_DICT, f"network_def: {error}") from error
    with torch.device("meta"):
        expected = build_network(spec)
    if repr(network) != repr(expected):  # layers and their settings, line by line
        lines = zip(repr(network).splitlines(), repr(expected).splitlines(), strict=False)
        found, wanted = next(((a, b) for a, b in lines if a != b), ("other layers", "its own"))
        raise ModelError(
            Reason.MODEL_NOT_STATE_DICT,
            f"network_def: {found.strip()} where the project's SegResNet has {wanted.strip()}",
        )
    return spec


def manifest_path(weights: Path) -> Path:
    """The manifest of a weights file that training wrote."""
    return weights.with_suffix(".json")


@dataclass(frozen=True, slots=True)
class WeightsLoader:
    """Finds and checks weights; nothing of a file is executed.

    Parameters
    ----------
    folder
        The bundle's ``models``: files as published, or a model store.
    name
        ``model.pt``, another file of ``folder``, or the name of a stored model.
    network
        That the config describes; its weights are replaced where they fit.
    preprocessing
        That the config describes.
    """

    folder: str
    name: str
    network: torch.nn.Module
    preprocessing: ToNetwork

    def load(self) -> LoadedModel:
        """Weights with their manifest.

        Raises
        ------
        ModelError
            ``unknown-model`` if there is no such file or model, ``model-checksum`` or
            ``model-manifest`` if a stored one is damaged, ``model-not-state-dict`` or
            ``model-class-count`` if a file does not fit the network.
        """
        path = Path(self.folder) / self.name
        model = self._of_file(path) if path.is_file() else self._of_store()
        manifest = model.manifest
        described = spec_of(self.network)
        if described == manifest.network:
            self.network.load_state_dict(dict(model.state_dict))
        _log.info(
            "weights %s %s, %g mm, sha256 %s",
            manifest.name,
            manifest.version,
            manifest.spacing_mm,
            manifest.weights_sha256,
        )
        for field, asked, own in (
            ("pixdim", self.preprocessing.spacing_mm, manifest.spacing_mm),
            ("network_def", described, manifest.network),
        ):
            if asked != own:
                _log.warning("the weights decide: %s is %s, not %s", field, own, asked)
        return model

    def _of_file(self, path: Path) -> LoadedModel:
        state_dict = read_state_dict(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        manifest = self._manifest_beside(path, digest) or self._described(path, digest)
        check_weights(state_dict, manifest.network, str(path))
        return LoadedModel(manifest, {k: tensor.float() for k, tensor in state_dict.items()})

    def _manifest_beside(self, path: Path, digest: str) -> ModelManifest | None:
        beside = manifest_path(path)
        if not beside.is_file():
            return None
        manifest = ModelManifest.from_json(beside.read_bytes(), str(beside))
        if manifest.weights_sha256 == digest:
            return manifest
        _log.warning("%s is of other weights than %s: left aside", beside, path)
        return None

    def _of_store(self) -> LoadedModel:
        imported = {w.file_name: w.model_name for w in PUBLISHED_WEIGHTS}
        name = imported.get(self.name, self.name)
        try:
            return locate(name, (ModelStore(Path(self.folder)), embedded_store())).load(name)
        except ModelError as error:
            if error.reason is not Reason.UNKNOWN_MODEL:
                raise
            raise ModelError(
                error.reason,
                f"neither a file {self.name} in {self.folder} nor a stored model: {error.detail}; "
                "a bundle downloads nothing",
            ) from error

    def _described(self, path: Path, digest: str) -> ModelManifest:
        """What is known of a published file, or what the config says of another."""
        if (published := published_manifest(path)) is not None:
            return dataclasses.replace(published, weights_sha256=digest)
        return ModelManifest(
            name=re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._") or "model",
            version=digest[:12],
            spacing_mm=self.preprocessing.spacing_mm,
            intensity=self.preprocessing.chosen_intensity or ROBUST_INTENSITY,
            network=spec_of(self.network),
            source=f"file {path.name}; spacing and intensity as configured",
            licence="unknown",
            intended_use=INTENDED_USE,
            demonstration=False,
            weights_sha256=digest,
        )
