"""Which models this machine has, and a segmenter made of one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from inference.engine.arithmetic import fast_windows
from inference.engine.resource_errors import resource_errors
from inference.errors import ModelError
from inference.intensity import PUBLISHED_INTENSITY
from inference.manifest import ModelManifest
from inference.model_store import ModelStore, embedded_store, locate
from inference.postprocessing import NO_POSTPROCESSING, CleanUp, PostprocessingSpec
from inference.segmenter import Segmenter, SegmenterOptions, SegResNetSegmenter
from inference.windows import Precision, WindowSpec
from pacs_bridge.config.routes import ALL_STRUCTURES, PostprocessingConfig, RouteConfig

#: Names the folder of the model store for commands that are given none.
MODELS_VARIABLE = "PACS_BRIDGE_MODELS"
#: Taken in this order where no model is named; after them whatever the package carries.
PREFERRED_MODELS = ("wholebody-1.5mm", "wholebody-3mm")
#: Of the models that find where a finer one has to look.
COARSE_SPACING_MM = 3.0


def default_models_folder(environ: Mapping[str, str] | None = None) -> Path:
    """``$PACS_BRIDGE_MODELS``, or ``pacs-bridge/models`` in the user's data folder (XDG)."""
    variables = os.environ if environ is None else environ
    if named := variables.get(MODELS_VARIABLE):
        return Path(named)
    data = variables.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data) / "pacs-bridge" / "models"


def model_stores(folder: Path | None) -> tuple[ModelStore, ...]:
    """The store in ``folder``, if there is one, then the models that the package carries."""
    embedded = embedded_store()
    return (embedded,) if folder is None else (ModelStore(folder), embedded)


def known_models(stores: Sequence[ModelStore]) -> tuple[str, ...]:
    """Names of all models, sorted."""
    return tuple(sorted({name for store in stores for name in store.names()}))


def preferred_model(stores: Sequence[ModelStore]) -> str:
    """The model to take where none is named: published weights before demonstration ones.

    Raises
    ------
    ModelError
        ``unknown-model`` if there is no model at all.
    """
    known = known_models(stores)
    for name in (*PREFERRED_MODELS, *embedded_store().names(), *known):
        if name in known:
            return name
    locate(PREFERRED_MODELS[0], stores)  # says that there is none
    raise AssertionError("unreachable")


@dataclass(frozen=True, slots=True)
class SegmenterChoice:
    """How a model is to run."""

    device: str = "auto"  #: auto, cpu, cuda or cuda:N
    parity: bool = False  #: the published chain to the letter: intensity, arithmetic, windows
    postprocessing: PostprocessingSpec = NO_POSTPROCESSING
    precision: Precision | None = None  #: None: what the device does fast
    whole_volume: bool = False  #: compute the air around the patient as well
    structures: tuple[str, ...] = ()  #: names of those that are wanted; empty: all. With
    #: ``parity`` or ``whole_volume`` everything is computed and the rest left out afterwards
    smooth_borders: bool = False  #: between the voxels of the model's grid; never in parity


def open_segmenter(name: str, stores: Sequence[ModelStore], choice: SegmenterChoice) -> Segmenter:
    """Load a model, checked, onto its device.

    Raises
    ------
    ModelError
        ``unknown-model``, ``model-checksum`` and their like.
    UnknownDeviceError
        If this machine has no such device.
    """
    model = locate(name, stores).load(name)
    device = found_device(choice.device)
    as_published = WindowSpec(precision=choice.precision or Precision.FP32)
    with resource_errors():  # a card is asked what it can do
        windows = as_published if choice.parity else fast_windows(device, choice.precision)
    options = SegmenterOptions(
        device=device,
        windows=windows,
        intensity=PUBLISHED_INTENSITY if choice.parity else None,
        postprocessing=choice.postprocessing,
        body_only=not (choice.parity or choice.whole_volume),
        structures=choice.structures,
        smooth_borders=choice.smooth_borders and not choice.parity,
    )
    restricts = bool(choice.structures) and options.body_only  # all: no region of what is wanted
    coarse = coarse_model(model.manifest, stores) if restricts else None
    finder = None
    if coarse is not None:
        plain = replace(
            options, structures=(), postprocessing=NO_POSTPROCESSING, smooth_borders=False
        )
        finder = SegResNetSegmenter(locate(coarse, stores).load(coarse), plain)
    return SegResNetSegmenter(model, options, finder)


def coarse_model(manifest: ModelManifest, stores: Sequence[ModelStore]) -> str | None:
    """The model that finds structures for a finer one: 3 mm, and as fit for its purpose.

    One whose manifest cannot be used is passed over; there may be none.

    Parameters
    ----------
    manifest
        Of the finer model. A demonstration model finds for demonstration models only.
    stores
        Where models are looked for.
    """
    if manifest.spacing_mm >= COARSE_SPACING_MM:
        return None
    known = known_models(stores)
    for name in sorted(known, key=lambda each: each != PREFERRED_MODELS[-1]):
        try:
            coarse = locate(name, stores).manifest(name)
        except ModelError:  # ``damaged_models`` names it
            continue
        fits = coarse.demonstration == manifest.demonstration
        if fits and coarse.spacing_mm == COARSE_SPACING_MM:
            return name
    return None


def damaged_models(stores: Sequence[ModelStore]) -> tuple[tuple[str, ModelError], ...]:
    """Names of models whose manifest cannot be used, and why: none of them finds for others."""
    found = []
    for name in known_models(stores):
        try:
            locate(name, stores).manifest(name)
        except ModelError as error:
            found.append((name, error))
    return tuple(found)


def route_models(routes: Iterable[RouteConfig], stores: Sequence[ModelStore]) -> tuple[str, ...]:
    """The models that routes take, each once: their own, and those that find for them.

    Raises
    ------
    ModelError
        If the manifest of a route's own model cannot be used.
    """
    names: dict[str, None] = {}
    for route in routes:
        names[route.model] = None
        if route.structures:
            manifest = locate(route.model, stores).manifest(route.model)
            if (coarse := coarse_model(manifest, stores)) is not None:
                names[coarse] = None
    return tuple(names)


class UnknownDeviceError(ValueError):
    """A device that this machine does not have."""


def found_device(wanted: str) -> str:
    """The device as torch names it; ``auto`` is a GPU where there is one.

    Raises
    ------
    UnknownDeviceError
        If this machine has no such device.
    """
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = wanted.partition(":")
    count = {"cpu": 1, "cuda": torch.cuda.device_count()}.get(kind, 0)
    if not (number or "0").isdecimal() or int(number or "0") >= count:
        raise UnknownDeviceError(f"no device {wanted!r} on this machine")
    return wanted


def device_computes(device: str) -> bool:
    """Whether a device, as torch names it, still computes in this process.

    Some errors of CUDA stay: every later call of the process fails with them (CUDA Runtime API,
    ``cudaErrorIllegalAddress`` and its like).
    """
    import torch

    try:
        return bool((torch.ones(8, device=device) + 1).sum().item() == 16)
    except torch.OutOfMemoryError:
        return True
    except RuntimeError:
        return False


class WarmSegmenters:
    """The last segmenter that was used, ready for the next series. For any number of threads.

    Parameters
    ----------
    stores
        Where models are looked for, in this order.
    device, precision
        As in ``SegmenterChoice``.
    """

    def __init__(
        self, stores: Sequence[ModelStore], device: str, precision: Precision | None = None
    ) -> None:
        self._stores = tuple(stores)
        self._device = device
        self._precision = precision
        self._lock = threading.Lock()
        self._warm: tuple[tuple[str, PostprocessingConfig, tuple[str, ...]], Segmenter] | None = (
            None
        )

    def get(
        self,
        model: str,
        cleanup: PostprocessingConfig | None = None,
        structures: tuple[str, ...] = (),
    ) -> Segmenter:
        """The segmenter of a model as a route has it. Raises as ``open_segmenter``.

        Parameters
        ----------
        model
            Its name.
        cleanup
            Postprocessing of the route; None: none.
        structures
            Names of those that are wanted; empty: all.
        """
        wanted = cleanup or PostprocessingConfig()
        asked = (model, wanted, structures)
        with self._lock:
            if self._warm is None or self._warm[0] != asked:
                self._warm = None  # two models at once may be one too many for the memory
                choice = SegmenterChoice(
                    self._device,
                    postprocessing=postprocessing_spec(wanted),
                    precision=self._precision,
                    structures=structures,
                    smooth_borders=wanted.smooth_borders,
                )
                self._warm = (asked, open_segmenter(model, self._stores, choice))
            return self._warm[1]

    def device_computes(self) -> bool:
        """Whether the device is still of use to this process."""
        try:
            return device_computes(found_device(self._device))
        except UnknownDeviceError:
            return False


def postprocessing_spec(cleanup: PostprocessingConfig) -> PostprocessingSpec:
    """A route's clean-up, structure by structure; what holds for all holds for those named too."""

    def of(name: str) -> CleanUp:
        names = {ALL_STRUCTURES, name}
        volumes = [ml for each, ml in cleanup.min_volume_ml.items() if each in names]
        return CleanUp(
            largest_component=not names.isdisjoint(cleanup.largest_component),
            minimum_ml=cleanup.min_volume_ml.get(name, max(volumes, default=0.0)),
            fill_holes=not names.isdisjoint(cleanup.fill_holes),
        )

    named = {*cleanup.largest_component, *cleanup.fill_holes, *cleanup.min_volume_ml}
    return PostprocessingSpec(
        default=of(ALL_STRUCTURES),
        by_structure=tuple((name, of(name)) for name in sorted(named - {ALL_STRUCTURES})),
    )
