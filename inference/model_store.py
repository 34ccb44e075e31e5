"""Where models are kept: one folder a model, weights as safetensors beside a manifest.

Loading executes nothing: safetensors holds numbers, the manifest is data, and the digest of
the weights is checked each time.

A model is what its manifest says, and the manifest changes in one step: weights that replace
others lie beside them under a name with their digest until then. A crash leaves the old model
or the new one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from inference.durable import durable_file, flush
from inference.errors import ModelError
from inference.manifest import ModelManifest
from inference.reasons import Reason

if TYPE_CHECKING:
    import torch

MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A manifest and weights that were checked against it."""

    manifest: ModelManifest
    state_dict: Mapping[str, torch.Tensor]  #: float32, on the CPU


class ModelStore:
    """Models by name in one folder; the folder may not exist yet.

    Parameters
    ----------
    root
        Holds one folder a model.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> tuple[str, ...]:
        """Names of the models, sorted; whether they are whole is for ``verify`` to say."""
        if not self.root.is_dir():
            return ()
        return tuple(sorted(p.parent.name for p in self.root.glob(f"[!.]*/{MANIFEST_FILE}")))

    def manifest(self, name: str) -> ModelManifest:
        """What the model says of itself; the weights are not read.

        Raises
        ------
        ModelError
            ``unknown-model``, ``model-manifest`` or ``model-class-count``.
        """
        if name not in self.names():
            known = ", ".join(self.names()) or "none"
            raise ModelError(Reason.UNKNOWN_MODEL, f"{name!r}; models here: {known}")
        path = self.root / name / MANIFEST_FILE
        try:
            text = path.read_bytes()
        except OSError as error:
            raise ModelError(Reason.MODEL_MANIFEST, f"{path}: {error.strerror}") from error
        manifest = ModelManifest.from_json(text, str(path))
        if manifest.name != name:
            raise ModelError(Reason.MODEL_MANIFEST, f"{path}: name: {manifest.name!r}")
        return manifest

    def load(self, name: str) -> LoadedModel:
        """Manifest and weights, checked: digest, keys and shapes.

        Raises
        ------
        ModelError
            As ``manifest``; ``model-checksum`` if the weights are not those of the manifest,
            ``model-not-state-dict`` if they do not fit the network.
        """
        manifest = self.manifest(name)
        path = self._weights(manifest)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(Reason.MODEL_CHECKSUM, f"{path}: {error.strerror}") from error
        found = hashlib.sha256(data).hexdigest()
        if found != manifest.weights_sha256:
            raise ModelError(
                Reason.MODEL_CHECKSUM, f"{path}: {found}, not {manifest.weights_sha256}"
            )
        return LoadedModel(manifest, _parse(data, manifest, str(path)))

    def verify(self, name: str) -> ModelManifest:
        """Check a model as ``load`` does; its manifest if it is whole."""
        return self.load(name).manifest

    def add(
        self,
        manifest: ModelManifest,
        state_dict: Mapping[str, torch.Tensor],
        *,
        replace: bool = False,
    ) -> ModelManifest:
        """Store a model; it appears whole or not at all, and so does one that replaces another.

        Parameters
        ----------
        manifest
            Its ``weights_sha256`` is filled in here.
        state_dict
            Weights of ``manifest.network``.
        replace
            Put it in the place of another model of that name.

        Raises
        ------
        ModelError
            ``model-not-state-dict`` or ``model-class-count`` if the weights do not fit,
            ``model-manifest`` if the name is taken by other weights.
        """
        from safetensors.torch import save

        from inference.weights import check_weights

        check_weights(state_dict, manifest.network, manifest.name)
        data = save({key: state_dict[key].contiguous() for key in sorted(state_dict)})
        stored = dataclasses.replace(manifest, weights_sha256=hashlib.sha256(data).hexdigest())
        target = self.root / manifest.name
        if manifest.name not in self.names():
            self._put(stored, data)
        elif replace:
            self._replace(stored, data)
        elif self.manifest(manifest.name) != stored:
            raise ModelError(Reason.MODEL_MANIFEST, f"{target}: another model has this name")
        return stored

    def _put(self, manifest: ModelManifest, data: bytes) -> None:
        """Both files in a folder of their own, which then gets its name."""
        self.root.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".adding-", dir=self.root))
        try:
            _write(draft / WEIGHTS_FILE, data)
            _write(draft / MANIFEST_FILE, manifest.to_json().encode())
            draft.chmod(0o755)
            draft.rename(self.root / manifest.name)
            flush(self.root)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _replace(self, manifest: ModelManifest, data: bytes) -> None:
        """New weights beside the old ones, then the manifest, then the old ones go."""
        folder = self.root / manifest.name
        weights = folder / _named_by_digest(manifest)
        _write(weights, data)
        _write(folder / MANIFEST_FILE, manifest.to_json().encode())
        for path in folder.iterdir():
            if path.name not in {MANIFEST_FILE, weights.name}:
                path.unlink()

    def _weights(self, manifest: ModelManifest) -> Path:
        folder = self.root / manifest.name
        replaced = folder / _named_by_digest(manifest)
        return replaced if replaced.exists() else folder / WEIGHTS_FILE


def embedded_store() -> ModelStore:
    """The models that the package itself carries, for demonstration."""
    return ModelStore(Path(str(files("inference") / "models")))


def locate(name: str, stores: Sequence[ModelStore]) -> ModelStore:
    """The first store that has the model.

    Raises
    ------
    ModelError
        ``unknown-model``, naming all that there are.
    """
    for store in stores:
        if name in store.names():
            return store
    known = ", ".join(sorted({n for store in stores for n in store.names()})) or "none"
    raise ModelError(Reason.UNKNOWN_MODEL, f"{name!r}; models here: {known}")


def _parse(data: bytes, manifest: ModelManifest, where: str) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    from inference.weights import check_weights

    try:
        tensors: dict[str, torch.Tensor] = load(data)
    except SafetensorError as error:
        raise ModelError(Reason.MODEL_NOT_STATE_DICT, f"{where}: {error}") from error
    check_weights(tensors, manifest.network, where)
    return {key: tensor.float() for key, tensor in tensors.items()}


def _named_by_digest(manifest: ModelManifest) -> str:
    stem, _, suffix = WEIGHTS_FILE.rpartition(".")
    return f"{stem}-{manifest.weights_sha256[:16]}.{suffix}"


def _write(path: Path, data: bytes) -> None:
    with durable_file(path) as draft:
        draft.write_bytes(data)
