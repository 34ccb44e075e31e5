"""What segments: the seam between the model and everything that uses label maps.

Importing this module imports no torch: ``SegResNetSegmenter`` loads what it needs when it is
made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from inference.errors import InferenceError, ModelError
from inference.identity import SegmenterIdentity
from inference.intensity import IntensitySpec
from inference.label_map import LabelMap
from inference.network import build_network
from inference.postprocessing import NO_POSTPROCESSING, PostprocessingSpec, postprocess
from inference.preprocessing import labels_to_source, to_network
from inference.reasons import Reason
from inference.volume import Volume
from inference.windows import WindowSpec

if TYPE_CHECKING:
    from inference.model_store import LoadedModel

#: Told the finished share of the work, 0 to 1, non-decreasing.
Progress = Callable[[float], None]

#: Shares of the work as measured for 1.5 mm: before the network, and with it.
_PREPARED, _INFERRED = 0.03, 0.98


class Segmenter(Protocol):
    """Turns a CT into a label map on the same planes."""

    @property
    def identity(self) -> SegmenterIdentity:
        """Who makes the label maps."""

    def segment(self, volume: Volume, progress: Progress | None = None) -> LabelMap:
        """Label every voxel of ``volume``.

        Parameters
        ----------
        volume
            CT numbers on parallel planes.
        progress
            Told the finished share of the work.

        Raises
        ------
        InferenceError
            ``model-error``, ``oom-cpu`` or ``oom-gpu``.
        """


@dataclass(frozen=True, slots=True)
class SegmenterOptions:
    """How a model is run.

    Parameters
    ----------
    device
        ``cpu``, ``cuda`` or ``cuda:0`` and so on, as torch names them.
    windows
        Window size, overlap and arithmetic.
    intensity
        In place of the model's own; ``PUBLISHED_INTENSITY`` for the published chain to the
        letter.
    postprocessing
        Clean-up of the result.
    """

    device: str = "cpu"
    windows: WindowSpec = field(default_factory=WindowSpec)
    intensity: IntensitySpec | None = None
    postprocessing: PostprocessingSpec = NO_POSTPROCESSING


class SegResNetSegmenter:
    """The published chain: resample, normalise, sliding window, arg max, back to the source.

    Parameters
    ----------
    model
        From a model store.
    options
        How it is run.
    """

    def __init__(self, model: LoadedModel, options: SegmenterOptions | None = None) -> None:
        import torch

        from inference.sliding_window import SplitNetwork

        self._options = options or SegmenterOptions()
        self._manifest = model.manifest
        self._intensity = self._options.intensity or model.manifest.intensity
        network = build_network(model.manifest.network)
        network.load_state_dict(dict(model.state_dict))
        device = torch.device(self._options.device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ModelError(Reason.MODEL_ERROR, f"device {self._options.device}: not available")
        with _resource_errors():
            self._network = SplitNetwork.of_segresnet(network).to(device, self._options.windows)

    @property
    def identity(self) -> SegmenterIdentity:
        """Model, digest, and every setting that changes the result."""
        manifest, windows = self._manifest, self._options.windows
        clamp = self._intensity.clamp_hu
        parameters = {
            "channels_last": str(windows.channels_last).lower(),
            "clamp_hu": "none" if clamp is None else f"{clamp[0]}..{clamp[1]}",
            "device": self._options.device.split(":")[0],
            "overlap": f"{windows.overlap:g}",
            "postprocessing": str(self._options.postprocessing),
            "precision": str(windows.precision),
            "scaling": str(self._intensity.scaling),
            "spacing_mm": f"{manifest.spacing_mm:g}",
            "window_voxels": str(windows.window_voxels),
        }
        return SegmenterIdentity(
            name=manifest.name,
            version=manifest.version,
            digest=manifest.weights_sha256,
            demonstration=manifest.demonstration,
            intended_use=manifest.intended_use,
            parameters=tuple(sorted(parameters.items())),
            source=f"{manifest.source}; {manifest.licence}",
        )

    def segment(self, volume: Volume, progress: Progress | None = None) -> LabelMap:
        """Label every voxel of ``volume``; see ``Segmenter``.

        Peak memory beyond the volume: its float32 copy on the network's grid, one slab of
        features (features x window x the two shorter extents of that grid, float32), the
        network's activations of one window, and uint8 labels on both grids.
        """
        from inference.sliding_window import segment_windows

        def report(share: float) -> None:
            if progress is not None:
                progress(share)

        with _resource_errors():
            seen = to_network(volume, self._manifest.spacing_mm, self._intensity)
            report(_PREPARED)
            labels = segment_windows(
                self._network,
                seen.array,
                self._options.windows,
                lambda share: report(_PREPARED + share * (_INFERRED - _PREPARED)),
            )
            grid = seen.grid
            del seen
            placed = labels_to_source(labels, grid)
            cleaned = postprocess(placed, self._options.postprocessing)
        report(1.0)
        return cleaned


@contextmanager
def _resource_errors() -> Iterator[None]:
    """Translate what torch and numpy raise; torch has no class of its own for main memory."""
    import torch

    try:
        yield
    except InferenceError:
        raise
    except torch.OutOfMemoryError as error:
        raise ModelError(Reason.OOM_GPU, _first_line(error)) from error
    except MemoryError as error:
        raise ModelError(Reason.OOM_CPU, _first_line(error)) from error
    except RuntimeError as error:
        text = _first_line(error)
        if "DefaultCPUAllocator" in text or "not enough memory" in text:
            raise ModelError(Reason.OOM_CPU, text) from error
        raise ModelError(Reason.MODEL_ERROR, text) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
