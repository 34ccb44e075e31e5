"""The clinic's sliding window as a MONAI inferer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from inference.sliding_window import SplitNetwork, segment_windows
from inference.windows import Precision, WindowSpec


@dataclass(frozen=True, slots=True)
class WindowInferer:
    """Labels of a whole volume, window by window.

    The names are those of MONAI's ``SlidingWindowInferer``. What it returns is not: the arg
    max is taken slab by slab, so that a volume of 105 logits never exists.

    Parameters
    ----------
    roi_size
        Edges of the window, voxels; equal, a multiple of 8.
    overlap
        Share of the edge that neighbouring windows have in common.
    sw_batch_size
        1: windows run one at a time.
    mode, padding_mode
        ``gaussian`` and ``replicate``, as published.
    """

    roi_size: Sequence[int] = (96, 96, 96)
    overlap: float = 0.25
    sw_batch_size: int = 1
    mode: str = "gaussian"
    padding_mode: str = "replicate"

    def __post_init__(self) -> None:
        if len(self.roi_size) != 3 or len(set(self.roi_size)) != 1:
            raise ValueError(f"roi_size must be three equal edges, voxels: {self.roi_size}")
        for field, only in (("mode", "gaussian"), ("padding_mode", "replicate")):
            if getattr(self, field) != only:
                raise ValueError(f"{field} must be {only!r}: {getattr(self, field)!r}")
        if self.sw_batch_size != 1:
            raise ValueError(
                f"sw_batch_size must be 1, windows run one at a time: {self.sw_batch_size}"
            )
        self.windows()

    def windows(self, precision: Precision = Precision.FP32) -> WindowSpec:
        """The same for the clinic's segmenter.

        Raises
        ------
        ValueError
            If window or overlap are impossible.
        """
        return WindowSpec(int(self.roi_size[0]), float(self.overlap), precision)

    def __call__(self, inputs: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
        """Labels of one volume.

        Parameters
        ----------
        inputs
            ``(1, 1, x, y, z)``, -1..1.
        network
            A SegResNet; it stays as it is.

        Returns
        -------
        torch.Tensor
            ``(1, 1, x, y, z)`` uint8.
        """
        if inputs.shape[:2] != (1, 1) or inputs.ndim != 5:
            raise ValueError(f"inputs must be (1, 1, x, y, z): {tuple(inputs.shape)}")
        device = next(network.parameters()).device
        spec = self.windows()
        split = SplitNetwork.of_segresnet(copy.deepcopy(network)).to(device, spec)
        array = np.asarray(inputs[0, 0].detach().cpu(), dtype=np.float32)
        return torch.from_numpy(segment_windows(split, array, spec))[None, None]
