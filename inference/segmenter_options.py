"""How a model is run: what may be chosen, and what changes labels."""

from __future__ import annotations

from dataclasses import dataclass, field

from inference.engine.plan import Carry
from inference.intensity import IntensitySpec
from inference.postprocessing import NO_POSTPROCESSING, PostprocessingSpec
from inference.structures import STRUCTURE_BY_NAME
from inference.windows import WindowSpec


@dataclass(frozen=True, slots=True)
class SegmenterOptions:
    """How a model is run; the default is as published.

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
    body_only
        Air around the patient is not computed: windows are laid over the body.
    carry
        How sums wait for the next layer of windows; None: as the precision asks for.
    structures
        Names of those that are wanted; all others become background. Empty: all.
    smooth_borders
        Borders run between the voxels of the network's grid, where interpolated scores of the
        classes have them, instead of along its voxels.
    """

    device: str = "cpu"
    windows: WindowSpec = field(default_factory=WindowSpec)
    intensity: IntensitySpec | None = None
    postprocessing: PostprocessingSpec = NO_POSTPROCESSING
    body_only: bool = False
    carry: Carry | None = None
    structures: tuple[str, ...] = ()
    smooth_borders: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.structures if name not in STRUCTURE_BY_NAME]
        if unknown:
            raise ValueError(f"no such structure: {', '.join(unknown)}")
