"""The clinic's preprocessing as a MONAI transform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor

from inference.intensity import (
    PUBLISHED_INTENSITY,
    ROBUST_INTENSITY,
    IntensitySpec,
    Scaling,
)
from inference.nifti import read_nifti
from inference.preprocessing import NetworkGrid, labels_to_network, to_network
from training.v1_labels import read_v1_labels

#: Added to the key of an image: where its grid is kept for the way back.
GRID_SUFFIX = "_grid"


#: What a config may say in place of numbers; None: whatever the weights were trained with.
NAMED_INTENSITIES: Mapping[str, IntensitySpec | None] = MappingProxyType(
    {"as-trained": None, "robust": ROBUST_INTENSITY, "published": PUBLISHED_INTENSITY}
)


def intensity_of(value: str | Mapping[str, Any]) -> IntensitySpec | None:
    """How HU become network values, from what JSON can say.

    Parameters
    ----------
    value
        ``as-trained``, ``robust``, ``published``, or ``{"clamp_hu": [low, high], "scaling":
        "per-volume" or "clamp-range"}``.

    Returns
    -------
    IntensitySpec or None
        None for ``as-trained``.
    """
    if isinstance(value, str):
        if value not in NAMED_INTENSITIES:
            raise ValueError(f"intensity must be one of {', '.join(NAMED_INTENSITIES)}: {value!r}")
        return NAMED_INTENSITIES[value]
    if value.keys() != {"clamp_hu", "scaling"}:
        raise ValueError(f"intensity needs clamp_hu and scaling: {dict(value)}")
    low, high = value["clamp_hu"]
    return IntensitySpec((int(low), int(high)), Scaling(value["scaling"]))


@dataclass(frozen=True, slots=True)
class ToNetwork:
    """From the path of a NIfTI file to what the network sees.

    Parameters
    ----------
    pixdim
        Spacing of the network's grid along x, y and z, mm; the three are equal.
    intensity
        As ``intensity_of``.
    image_key
        Of the path in the dictionaries that are transformed.
    label_key
        Of the path of the truth, where there is one.
    """

    pixdim: Sequence[float]
    intensity: str | Mapping[str, Any] = "as-trained"
    image_key: str = "image"
    label_key: str | None = None

    def __post_init__(self) -> None:
        if len(self.pixdim) != 3 or len({float(mm) for mm in self.pixdim}) != 1:
            raise ValueError(f"pixdim must be three equal spacings, mm: {self.pixdim}")
        intensity_of(self.intensity)

    @property
    def chosen_intensity(self) -> IntensitySpec | None:
        """How HU become network values; None: as the weights were trained."""
        return intensity_of(self.intensity)

    @property
    def spacing_mm(self) -> float:
        """Of the network's grid."""
        return float(self.pixdim[0])

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Replace paths by arrays.

        Returns
        -------
        dict
            ``image_key``: ``(1, x, y, z)`` float32, -1..1; ``label_key``: the same shape,
            uint8; ``image_key + "_grid"``: the ``NetworkGrid`` that leads back to the scan.

        Raises
        ------
        NiftiError
            As ``read_nifti`` and ``read_v1_labels``.
        """
        result = dict(data)
        path = Path(data[self.image_key])
        spec = self.chosen_intensity or ROBUST_INTENSITY
        seen = to_network(read_nifti(path), self.spacing_mm, spec)
        result[self.image_key] = _with_affine(seen.array, seen.grid, path)
        result[self.image_key + GRID_SUFFIX] = seen.grid
        if self.label_key is not None and data.get(self.label_key) is not None:
            path = Path(data[self.label_key])
            labels = labels_to_network(read_v1_labels(path), seen.grid)
            result[self.label_key] = _with_affine(labels, seen.grid, path)
        return result


def _with_affine(array: np.ndarray[Any, Any], grid: NetworkGrid, path: Path) -> MetaTensor:
    """``(1, x, y, z)`` with what MONAI's own tools look for: RAS affine and file name."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))[None]
    affine = torch.from_numpy(grid.affine_ras.copy())
    return MetaTensor(tensor, affine=affine, meta={"filename_or_obj": str(path)})
