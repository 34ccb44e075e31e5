"""Voxels that were not measured: no structure is there, and one that ends there may go on."""

from __future__ import annotations

from inference.label_map import BACKGROUND, LabelMap
from inference.volume import PADDING_HU, Volume


def clear_padding(label_map: LabelMap, volume: Volume) -> None:
    """Make labels background where ``volume`` is padding, in place, plane by plane.

    A network knows nothing of padding, and labels that are put onto the planes of the source
    reach up to half a voxel of the network's grid beyond what was measured.

    Parameters
    ----------
    label_map
        On the planes of ``volume``.
    volume
        What was labelled.
    """
    for labels, hu in zip(label_map.labels, volume.hu, strict=True):
        labels[hu == PADDING_HU] = BACKGROUND
