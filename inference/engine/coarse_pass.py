"""What a coarse pass says of where wanted structures are, and whether it was right."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from inference.engine.network_scan import NetworkScan
from inference.engine.region import Region
from inference.label_map import LabelMap
from inference.preprocessing import labels_to_network
from inference.structures import STRUCTURE_BY_NAME
from inference.wanted_labels import wanted_labels


class CoarsePass:
    """Some structures, and a coarse result that is to find them.

    Parameters
    ----------
    structures
        Their names.
    found
        The coarse result.
    """

    def __init__(self, structures: Iterable[str], found: LabelMap) -> None:
        names = tuple(structures)
        self._found = found
        self._wanted = wanted_labels(names)
        self._ids = {STRUCTURE_BY_NAME[name].id for name in names}

    def region(self, scan: NetworkScan, body: Region) -> Region:
        """What is near the structures; the whole body if the coarse pass missed one of them."""
        grid = scan.sampler.grid
        labels = grid.grid_view(labels_to_network(self._found, grid))
        near = Region.of_labels(labels, self._wanted, scan.block, grid.spacing_mm)
        # one that was not found may be far from those that were
        return near.meet(body) if self._ids <= set(self._found.present()) else body

    def was_right(self, labels: npt.NDArray[np.uint8], region: Region, body: Region) -> bool:
        """Whether each structure was found in its region and none goes on beyond it.

        A few voxels far from the organ are enough to make a coarse result wrong.

        Parameters
        ----------
        labels
            ``(k, j, i)`` on the network's grid, of ``region``.
        region, body
            What was computed, and what would have been without the coarse pass.
        """
        if region is body:
            return True
        present = np.zeros(256, dtype=np.bool_)
        for plane in labels:  # counting makes eight bytes of each voxel
            present |= np.bincount(plane.ravel(), minlength=256) > 0
        return bool(present[list(self._ids)].all()) and not region.cuts(labels, self._wanted, body)
