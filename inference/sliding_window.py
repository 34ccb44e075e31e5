"""The network over a whole scan, window by window, in bounded memory.

Windows, weights and border padding are those of MONAI's ``SlidingWindowInferer`` as the
published model uses it. What differs is where windows are blended: the last layer is a 1x1x1
convolution, so the weighted mean of its outputs is the convolution of the weighted mean of
its inputs. Blending 32 feature channels instead of 105 logits, and only for the slab that
windows still reach, keeps memory at one slab of features; labels leave slab by slab. The
result differs from MONAI's at ties within rounding only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from inference.errors import ModelError
from inference.reasons import Reason
from inference.windows import Precision, WindowSpec, window_starts

#: Told the finished share of the work, 0 to 1, non-decreasing.
Progress = Callable[[float], None]

#: Width of the Gaussian weight over a window, in windows, and its floor: MONAI's defaults.
_SIGMA_WINDOWS = 0.125
_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class SplitNetwork:
    """A network in two parts: window to features, features to logits.

    Parameters
    ----------
    body
        ``(1, 1, x, y, z)`` to ``(1, features, x, y, z)``, everything up to the last layer.
    weight, bias
        ``(classes, features)`` and ``(classes,)`` of the last layer, float32.
    """

    body: torch.nn.Module
    weight: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def of_segresnet(cls, network: torch.nn.Module) -> SplitNetwork:
        """Split a SegResNet before its 1x1x1 convolution; ``network`` itself is changed."""
        final = network.conv_final
        assert isinstance(final, torch.nn.Sequential)
        state = final[2].state_dict()
        final[2] = torch.nn.Identity()
        weight, bias = state["conv.weight"], state["conv.bias"]
        return cls(network.eval(), weight.flatten(1).float(), bias.float())

    def to(self, device: torch.device, spec: WindowSpec) -> SplitNetwork:
        """The same network where and in the precision that it runs."""
        dtype = torch.bfloat16 if spec.precision is Precision.BF16 else torch.float32
        layout = torch.channels_last_3d if spec.channels_last else torch.contiguous_format
        body = self.body.to(device=device, dtype=dtype)
        body = body.to(memory_format=layout)  # type: ignore[call-overload]
        return SplitNetwork(body, self.weight.to(device), self.bias.to(device))


def importance_map(window: int, device: torch.device) -> torch.Tensor:
    """``(window, window, window)`` Gaussian weights of a window's voxels, float32."""
    half = (window - 1) / 2.0
    distance = torch.arange(-half, half + 1, dtype=torch.float32, device=device)
    line = torch.exp(distance**2 / (-2 * (_SIGMA_WINDOWS * window) ** 2))
    weights = line[:, None, None] * line[None, :, None] * line[None, None, :]
    return weights.clamp_(min=max(float(weights.min()), _LEAST_WEIGHT))


@torch.inference_mode()
def segment_windows(
    network: SplitNetwork,
    array: npt.NDArray[np.float32],
    spec: WindowSpec,
    progress: Progress | None = None,
) -> npt.NDArray[np.uint8]:
    """The most likely class of each voxel.

    Parameters
    ----------
    network
        On the device that does the work, in the precision of ``spec``.
    array
        ``(x, y, z)``, -1..1; any memory layout.
    spec
        How windows cover it.
    progress
        Told the finished share of windows.

    Returns
    -------
    ``(x, y, z)`` uint8, in the memory layout of ``array``.

    Raises
    ------
    ModelError
        ``model-error`` if the network gives values that are not finite.
    """
    labels = np.empty_like(array, dtype=np.uint8, order="K")
    longest = int(np.argmax(array.shape))  # slabs lie across it: least memory
    axes = (longest, *(axis for axis in range(3) if axis != longest))
    moved_in, moved_out = array.transpose(axes), labels.transpose(axes)
    window = spec.window_voxels
    padding = [max(window - extent, 0) for extent in moved_in.shape]
    before = tuple(pad // 2 for pad in padding)
    padded = (
        np.pad(moved_in, [(b, p - b) for b, p in zip(before, padding, strict=True)], mode="edge")
        if any(padding)
        else moved_in
    )
    for start, slab in _slabs(network, padded, spec, axes, progress):
        _place(slab, start, before, moved_out)
    return labels


def _place(
    slab: npt.NDArray[np.uint8],
    start: int,
    before: tuple[int, ...],
    out: npt.NDArray[np.uint8],
) -> None:
    """Copy a slab of the padded array to where it belongs, padding cut off."""
    first, last = max(start, before[0]), min(start + slab.shape[0], before[0] + out.shape[0])
    if first < last:
        y, x = (slice(b, b + n) for b, n in zip(before[1:], out.shape[1:], strict=True))
        out[first - before[0] : last - before[0]] = slab[first - start : last - start, y, x]


def _slabs(
    network: SplitNetwork,
    array: npt.NDArray[np.float32],
    spec: WindowSpec,
    axes: tuple[int, ...],
    progress: Progress | None,
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Yield finished slabs of labels along the first axis, with their start.

    ``axes`` says which of the network's axes those of ``array`` are.
    """
    window, device = spec.window_voxels, network.weight.device
    starts = [window_starts(extent, window, spec.overlap) for extent in array.shape]
    windows_a_slab = len(starts[1]) * len(starts[2])
    importance = importance_map(window, device)
    to_network = np.argsort(axes)
    channels_first = (0, *(axis + 1 for axis in axes))
    features = torch.zeros(
        (network.weight.shape[1], window, *array.shape[1:]), dtype=torch.float32, device=device
    )
    weights = torch.zeros((window, *array.shape[1:]), dtype=torch.float32, device=device)
    ends = (*starts[0][1:], array.shape[0])
    for number, (start, end) in enumerate(zip(starts[0], ends, strict=True)):
        for done, (y, x) in enumerate(itertools.product(starts[1], starts[2]), start=1):
            patch = array[start : start + window, y : y + window, x : x + window]
            found = _features(network, patch.transpose(to_network), spec)
            here = (slice(None), slice(y, y + window), slice(x, x + window))
            features[(slice(None), *here)].addcmul_(found.permute(channels_first), importance)
            weights[here] += importance
            if progress is not None:
                progress((number + done / windows_a_slab) / len(starts[0]))
        finished = end - start
        yield start, _classes(network, features[:, :finished], weights[:finished])
        if end < array.shape[0]:
            _shift(features, finished, axis=1)
            _shift(weights, finished, axis=0)


def _features(
    network: SplitNetwork, patch: npt.NDArray[np.float32], spec: WindowSpec
) -> torch.Tensor:
    """``(features, x, y, z)`` float32 of one ``(x, y, z)`` window."""
    window = torch.from_numpy(np.ascontiguousarray(patch))[None, None].to(network.weight.device)
    if spec.precision is Precision.BF16:
        window = window.bfloat16()
    if spec.channels_last:
        window = window.contiguous(memory_format=torch.channels_last_3d)
    features: torch.Tensor = network.body(window)[0].float()
    if not bool(torch.isfinite(features.sum())):
        raise ModelError(Reason.MODEL_ERROR, "the network gave values that are not finite")
    return features


def _classes(
    network: SplitNetwork, features: torch.Tensor, weights: torch.Tensor
) -> npt.NDArray[np.uint8]:
    """``(slab, y, x)`` class of the largest logit, plane by plane."""
    labels = np.empty(tuple(weights.shape), dtype=np.uint8)
    for index in range(weights.shape[0]):
        mean = (features[:, index] / weights[index]).flatten(1)
        logits = torch.addmm(network.bias[:, None], network.weight, mean)
        labels[index] = (
            logits.argmax(dim=0).to(torch.uint8).reshape(weights.shape[1:]).cpu().numpy()
        )
    return labels


def _shift(tensor: torch.Tensor, by: int, axis: int) -> None:
    """Move a tensor down by ``by`` along ``axis`` and clear what becomes free."""
    kept = tensor.shape[axis] - by
    for index in range(kept):  # plane by plane: source and target overlap
        tensor.select(axis, index).copy_(tensor.select(axis, index + by))
    tensor.narrow(axis, kept, by).zero_()
