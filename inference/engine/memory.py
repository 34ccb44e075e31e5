"""What a run takes in memory, estimated before it starts, and what there is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inference.engine.heap import give_back_heap
from inference.engine.plan import WindowPlan
from inference.windows import Precision

#: Whole volumes of features that the network holds at its peak, as measured.
_LIVE_FEATURE_VOLUMES = 8
#: Of a voxel in the box of a structure that is cleaned up, as measured.
_CLEAN_UP_BYTES = 10
_PROC, _CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
_KIB = 1024


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes that a run takes beyond what the process holds before it.

    Parameters
    ----------
    device
        Where the network runs: window, sums, slab.
    host
        In main memory whatever the device: labels on both grids, or standings on the network's.
    source
        The int16 scan itself.
    after
        In main memory once the network is done: labels, and what their clean-up takes.
    """

    device: int
    host: int
    source: int
    after: int = 0

    @property
    def all_in_main_memory(self) -> int:
        """With the network on the CPU, the scan not read yet."""
        return self.beyond_source + self.source

    @property
    def beyond_source(self) -> int:
        """With the network on the CPU and the scan in memory."""
        return max(self.device + self.host, self.after)

    def with_coarse_pass(self, coarse: MemoryNeed, kept: int) -> MemoryNeed:
        """The same after a coarse pass that needs ``coarse`` and leaves ``kept`` bytes."""
        return MemoryNeed(
            device=max(self.device, coarse.device),
            host=max(self.host, coarse.host) + kept,
            source=self.source,
            after=max(self.after, coarse.after) + kept,
        )


def memory_need(
    plan: WindowPlan,
    features: int,
    grid: tuple[int, ...],
    source: tuple[int, ...],
    grid_voxel_bytes: int = 1,
    is_cleaned: bool = False,
) -> MemoryNeed:
    """Estimate of one scan.

    Parameters
    ----------
    plan
        How it is run.
    features
        Channels at full resolution.
    grid, source
        Shapes of the network's grid and of the scan, voxels.
    grid_voxel_bytes
        What is kept of each voxel of the network's grid until all are labelled.
    is_cleaned
        Whether labels are cleaned up, which takes most for a structure that fills the scan.
    """
    number_bytes = 2 if plan.spec.precision is Precision.BF16 else 4
    window = plan.spec.window_voxels**3 * features * number_bytes * _LIVE_FEATURE_VOLUMES
    return MemoryNeed(
        device=window + plan.blending_bytes(features) + plan.slab_bytes(),
        host=math.prod(grid) * grid_voxel_bytes + math.prod(source),
        source=2 * math.prod(source),
        after=math.prod(source) * (1 + (_CLEAN_UP_BYTES if is_cleaned else 0)),
    )


def available_bytes(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int | None:
    """Main memory that can be had without swapping, the limit of a container included.

    Parameters
    ----------
    proc, cgroup
        Where Linux tells (proc(5), control groups version 2).

    Returns
    -------
    None where the system does not tell.
    """
    known = [_free_bytes(proc / "meminfo"), _group_bytes(cgroup)]
    return min((each for each in known if each is not None), default=None)


def free_bytes(wanted: int, available: Callable[[], int | None]) -> int | None:
    """Main memory that can be had; what is kept free for windows is given back if it is short.

    Parameters
    ----------
    wanted
        Bytes that are hoped for.
    available
        Such as ``available_bytes``.
    """
    found = available()
    if found is None or found >= wanted:
        return found
    give_back_heap()
    return available()


def gigabytes(size_bytes: int | None) -> str:
    """For people."""
    return "unknown" if size_bytes is None else f"{size_bytes / 1e9:.2f} GB"


def free_card_bytes(device: str) -> int:
    """Memory that can be had on a card."""
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


def _free_bytes(meminfo: Path) -> int | None:
    try:
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * _KIB
    except (OSError, ValueError):
        return None
    return None


def _group_bytes(cgroup: Path) -> int | None:
    """What is left below ``memory.max``; pages of files count as free."""
    try:
        limit = (cgroup / "memory.max").read_text(encoding="ascii").strip()
        if limit == "max":
            return None
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        stat = (cgroup / "memory.stat").read_text(encoding="ascii").splitlines()
        cached = sum(int(n) for name, n in map(str.split, stat) if name == "inactive_file")
        return max(int(limit) - used + cached, 0)
    except (OSError, ValueError):
        return None
