"""The processes that train one network together: as torchrun starts them, or one alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of how many processes this one is."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def add_up(self, tensor: torch.Tensor) -> None:
        """Replace ``tensor`` by its sum over all processes, the same bits in each."""
        if self.size > 1:
            distributed.all_reduce(tensor)

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            distributed.barrier()


ALONE = Ranks()


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is some; each process of a node takes its own device."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return torch.device(name)


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join the other processes, by nccl on CUDA and gloo elsewhere.

    Reads ``RANK`` and ``WORLD_SIZE`` as torchrun sets them; a group that exists already is
    used and left alone.
    """
    if distributed.is_available() and distributed.is_initialized():
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
        return
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
        distributed.init_process_group("nccl", device_id=device)
    else:
        distributed.init_process_group("gloo")
    try:
        yield Ranks(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()
