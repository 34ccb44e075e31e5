"""What memory there is, in the machine and on a card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from inference.engine.heap import give_back_heap

_PROC, _CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
_KIB = 1024


class CardGauge(Protocol):
    """What ``torch.cuda`` tells of the memory of its devices, bytes."""

    def mem_get_info(self, device: str) -> tuple[int, int]:
        """Free and all of it, whoever uses it."""
        ...

    def memory_reserved(self, device: str) -> int:
        """Held by torch in this process, in use or kept for the next tensor."""
        ...

    def memory_allocated(self, device: str) -> int:
        """In use by tensors of this process."""
        ...


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


def free_card_bytes(device: str, gauge: CardGauge | None = None) -> int:
    """Memory that can be had on a card: what is free, and what torch keeps for the next tensor.

    Parameters
    ----------
    device
        As torch names it.
    gauge
        None: ``torch.cuda``.
    """
    if gauge is None:
        import torch

        gauge = torch.cuda
    kept = gauge.memory_reserved(device) - gauge.memory_allocated(device)
    return int(gauge.mem_get_info(device)[0]) + int(kept)


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
