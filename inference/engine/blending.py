"""Windows' features added up, in memory for one band and one overlap of layers.

Axes are those of ``inference.engine.tiling``: ``(a, b, c)``. Sums are kept as
``(a, b, c, features + 1)``: the weighted features of a voxel side by side, as a
channels-last network gives them and as the last layer wants them, and behind them the sum of
weights. A voxel that no window reached has weight 0 and is background.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from inference.engine.plan import head_voxels
from inference.engine.ranking import near_borders, rank
from inference.engine.split_network import SplitNetwork, importance_map
from inference.engine.tiling import Tiling
from inference.standings import FIRST, SECOND, STANDING_BYTES

#: Told the first voxel along a and b of a finished ``(a, b, c, 1)`` block of uint8 labels, or
#: of ``(a, b, c, 4)`` standings.
Emit = Callable[[int, int, torch.Tensor], None]


class Blend:
    """What windows have given so far, for voxels that others still reach.

    Parameters
    ----------
    network
        Its last layer makes labels of the sums.
    tiling
        Decides how much has to be kept.
    carry_type
        Of the sums that wait for the next layer: float32, or float16 at half the memory.
    emit
        Gets finished labels; every voxel of a layer's finished part once.
    ranked
        It gets standings (``inference.standings``) in place of labels.
    """

    def __init__(
        self,
        network: SplitNetwork,
        tiling: Tiling,
        carry_type: torch.dtype,
        emit: Emit,
        ranked: bool = False,
    ) -> None:
        self._head = network.head()
        self._window = tiling.window
        self._emit = emit
        self._ranked = ranked
        _, rows, columns = tiling.extents
        width, device = network.features + 1, network.device
        self._importance = importance_map(tiling.window, device)[..., None]
        self._band = torch.zeros((tiling.window, tiling.window, columns, width), device=device)
        self._carry = torch.zeros(
            (tiling.carried, rows, columns, width), dtype=carry_type, device=device
        )
        count = head_voxels(on_card=device.type != "cpu")
        self._logits = torch.empty((count, self._head.shape[1]), device=device)
        self._layer = 0  # first voxel of the layer along a
        self._waiting = 0  # planes of the carry that hold sums of earlier layers
        self._done = 0  # planes of the layer that no later layer reaches
        self._row = 0  # first row of the band, of which all before it are finished
        self._loaded = 0  # rows before this one are in the band, or finished

    def begin_layer(self, start: int, done: int) -> None:
        """Go on to the layer at ``start``, whose first ``done`` planes are complete after it."""
        self._layer, self._done = start, done
        self._row = self._loaded = 0

    def begin_band(self, start: int) -> None:
        """Go on to the band at ``start``: rows before it are finished."""
        self._finish_band(start)
        if start > self._row:  # rows that no band covers
            self._finish_uncovered(self._row, start)
            self._row = self._loaded = start
        first, last = self._loaded, start + self._window
        fresh = self._band[:, first - start : last - start]
        fresh[self._waiting :] = 0
        fresh[: self._waiting] = self._carry[: self._waiting, first:last]
        self._loaded = last

    def add(self, column: int, features: torch.Tensor) -> None:
        """Add the ``(a, b, c, features)`` of the window at ``column`` of the band."""
        there = self._band[:, :, column : column + self._window]
        there[..., -1:] += self._importance
        if features.device.type != "cpu":
            there[..., :-1].addcmul_(features.float(), self._importance)
            return
        for sums, values, weights in zip(there, features, self._importance, strict=True):
            sums[..., :-1].addcmul_(values.float(), weights)  # plane by plane: in the cache

    def end_layer(self) -> None:
        """Finish all rows that are left."""
        self._finish_band(self._loaded)
        self._finish_uncovered(self._row, self._carry.shape[1])
        self._waiting = self._window - self._done

    def _finish_band(self, until: int) -> None:
        """Finish the band's rows before ``until`` and move up the others."""
        until = min(until, self._loaded)
        count = until - self._row
        if count <= 0:
            return
        kept = self._loaded - until
        self._label(self._band[: self._done, :count], self._row)
        self._carry[: self._window - self._done, self._row : until] = self._band[
            self._done :, :count
        ]
        for row in range(kept):  # one by one: source and target overlap
            self._band[:, row] = self._band[:, row + count]
        self._row = until

    def _finish_uncovered(self, first: int, last: int) -> None:
        """Finish rows that have no window in this layer: what earlier layers gave is all."""
        if first >= last:
            return
        rows = self._carry[:, first:last]
        finished = min(self._done, self._waiting)
        self._label(rows[:finished], first)
        left = self._waiting - finished
        for plane in range(left):
            rows[plane] = rows[plane + finished]
        rows[left:] = 0

    def _label(self, sums: torch.Tensor, row: int) -> None:
        """Give away the classes of ``(a, b, c, features + 1)`` sums."""
        if not sums.numel() or not bool(sums[..., -1].any()):
            return
        labels = torch.empty(sums.shape[:-1], dtype=torch.uint8, device=sums.device)
        count = self._logits.shape[0]
        for plane, found in zip(sums, labels, strict=True):
            voxels, classes = plane.reshape(-1, plane.shape[-1]).float(), found.view(-1)
            for at in range(0, classes.shape[0], count):
                logits = self._logits_of(voxels[at : at + count])
                classes[at : at + count] = logits.argmax(dim=1)
        labels[sums[..., -1] == 0] = 0
        found = self._standings(sums, labels) if self._ranked else labels[..., None]
        self._emit(self._layer, row, found)

    def _standings(self, sums: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """``(a, b, c, 4)``; voxels are ranked where borders may be."""
        found = torch.zeros((*labels.shape, STANDING_BYTES), dtype=torch.uint8, device=sums.device)
        found[..., FIRST] = found[..., SECOND] = labels
        near = near_borders(labels) & (sums[..., -1] != 0)
        count = self._logits.shape[0]
        for plane, standings, here in zip(sums, found, near, strict=True):
            voxels = plane[here].float()
            ranked = torch.empty_like(voxels[:, :STANDING_BYTES], dtype=torch.uint8)
            for at in range(0, voxels.shape[0], count):
                some = voxels[at : at + count]
                rank(self._logits_of(some), some[:, -1], ranked[at : at + count])
            standings[here] = ranked
        return found

    def _logits_of(self, voxels: torch.Tensor) -> torch.Tensor:
        """``(n, classes)``, valid until it is called again."""
        return torch.mm(voxels, self._head, out=self._logits[: voxels.shape[0]])
