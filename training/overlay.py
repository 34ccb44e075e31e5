"""Labels over a scan as a picture: the truth beside what was found."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from inference.structures import CLASS_COUNT

_SHARE = 0.5  #: of the colour over the grey value


def draw_overlay(
    image: npt.NDArray[np.float32], labels: Sequence[npt.NDArray[np.uint8]], path: Path
) -> None:
    """Write a PNG of the coronal plane that shows most: plain, then under each labelling.

    Parameters
    ----------
    image
        ``(x, y, z)`` as the network sees it, RAS, -1..1.
    labels
        Structure ids on the same grid; the first chooses the plane.
    path
        Where to write.
    """
    plane = int(np.argmax(np.count_nonzero(labels[0], axis=(0, 2))))
    grey = np.clip((_facing(image[:, plane]) + 1) * 127.5, 0, 255)
    plain = np.repeat(grey[..., None], 3, axis=2)
    panels = [plain]
    for found in labels:
        ids = _facing(found[:, plane])
        mixed = (1 - _SHARE) * plain + _SHARE * _COLOURS[ids]
        panels.append(np.where(ids[..., None] > 0, mixed, plain))
    Image.fromarray(np.concatenate(panels, axis=1).astype(np.uint8)).save(path)


def _facing(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An ``(x, z)`` plane as seen from the front: head up, the patient's left at the right.

    The network's x grows to the right of the patient, who faces us.
    """
    return plane.T[::-1, ::-1]


_COLOURS = np.array(
    [[255 * c for c in colorsys.hsv_to_rgb(i * 0.618034 % 1, 0.9, 1.0)] for i in range(CLASS_COUNT)]
)
