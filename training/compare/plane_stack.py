"""Planes along a normal: which are the same, and which were not stored since they hold nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inference.geometry import FloatArray

#: A gap this close to whole steps lacks planes, in shares of a step.
_WHOLE_STEPS = 0.02


def distinct_planes(
    origins_mm: FloatArray, normal: FloatArray, same_mm: float
) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    """Planes in ascending position, and which of them each of ``origins_mm`` is.

    Parameters
    ----------
    origins_mm
        ``(n, 3)``, LPS, in any order.
    normal
        ``(3,)``, unit vector.
    same_mm
        Positions that are this close are one plane.
    """
    along = origins_mm @ normal
    order = np.argsort(along, kind="stable")
    new = np.diff(along[order], prepend=-np.inf) > same_mm
    which = np.empty(along.size, dtype=np.intp)
    which[order] = np.cumsum(new) - 1
    return origins_mm[order][new], which


def with_empty_planes(
    planes_mm: FloatArray, normal: FloatArray, step_mm: float | None
) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    """Put planes back where whole steps are missing, and say where each given one is now.

    A single plane gets a neighbour on either side: they tell how thick it is.

    Parameters
    ----------
    planes_mm
        ``(n, 3)``, LPS origins in ascending position.
    normal
        ``(3,)``, unit vector.
    step_mm
        Distance of neighbouring planes; the median distance where None.
    """
    gaps_mm = np.diff(planes_mm @ normal)
    if step_mm is None:
        step_mm = float(np.median(gaps_mm)) if gaps_mm.size else 1.0
    if not gaps_mm.size:
        aside = normal * step_mm
        planes_mm = np.stack([planes_mm[0] - aside, planes_mm[0], planes_mm[0] + aside])
        return planes_mm, np.array([1])
    steps = np.rint(gaps_mm / step_mm).astype(np.intp)
    whole = np.abs(gaps_mm / step_mm - steps) <= _WHOLE_STEPS * steps
    steps = np.where(whole & (steps > 1), steps, 1)
    place = np.concatenate([[0], np.cumsum(steps)])
    index = np.arange(place[-1] + 1)
    filled = np.stack([np.interp(index, place, planes_mm[:, axis]) for axis in range(3)], axis=1)
    return filled, place
