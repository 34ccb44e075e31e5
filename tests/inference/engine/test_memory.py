"""What memory there is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inference.engine.memory import available_bytes, free_card_bytes

GIB = 2**30


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "meminfo").write_text("MemTotal: 25165824 kB\nMemAvailable: 8388608 kB\n")
    return tmp_path


def group(folder: Path, limit: str) -> Path:
    folder.mkdir()
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{3 * GIB}\n")
    (folder / "memory.stat").write_text(f"anon {2 * GIB}\ninactive_file {GIB}\n")
    return folder


def test_a_machine_has_what_its_kernel_says(proc: Path, tmp_path: Path) -> None:
    assert available_bytes(proc, tmp_path / "none") == 8 * GIB
    assert available_bytes(proc, group(tmp_path / "unlimited", "max")) == 8 * GIB


def test_a_container_has_what_is_left_of_its_limit(proc: Path, tmp_path: Path) -> None:
    assert available_bytes(proc, group(tmp_path / "limited", str(4 * GIB))) == 2 * GIB


def test_a_system_that_does_not_tell_is_not_guessed_at(tmp_path: Path) -> None:
    assert available_bytes(tmp_path / "none", tmp_path / "none") is None


class Gauge:
    """A card with 3 GiB free, of which torch holds two more and uses half a one."""

    def mem_get_info(self, device: str) -> tuple[int, int]:
        return 3 * GIB, 80 * GIB

    def memory_reserved(self, device: str) -> int:
        return 2 * GIB

    def memory_allocated(self, device: str) -> int:
        return GIB // 2


def test_what_torch_keeps_for_its_next_tensor_is_free() -> None:
    assert free_card_bytes("cuda:0", Gauge()) == 3 * GIB + 3 * GIB // 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_card_has_as_much_after_a_tensor_as_before_it() -> None:
    torch.zeros(1, device="cuda")
    before = free_card_bytes("cuda")
    block = torch.zeros(256 << 20, dtype=torch.uint8, device="cuda")
    beside = free_card_bytes("cuda")
    del block

    assert before - beside >= 256 << 20
    assert abs(free_card_bytes("cuda") - before) < 32 << 20
