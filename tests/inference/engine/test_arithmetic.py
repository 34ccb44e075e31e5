"""The arithmetic follows the machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inference.engine.arithmetic import fast_windows, windows_on_cpu
from inference.windows import Precision, WindowSpec


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx512f avx512_bf16 amx_bf16 amx_tile", Precision.BF16),
        ("fpu avx512f avx512_bf16", Precision.BF16),
        ("fpu avx2 avx512f", Precision.FP32),
    ],
)
def test_bfloat16_where_the_processor_has_it(
    tmp_path: Path, flags: str, expected: Precision
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t:\n")

    windows = fast_windows("cpu", cpu_info=tmp_path / "cpuinfo")

    assert windows.precision is expected
    assert windows.channels_last


def test_what_is_asked_for_wins(tmp_path: Path) -> None:
    assert fast_windows("cpu", Precision.BF16, tmp_path / "none").precision is Precision.BF16


def test_a_machine_that_does_not_tell_computes_in_single_precision(tmp_path: Path) -> None:
    assert fast_windows("cpu", cpu_info=tmp_path / "none").precision is Precision.FP32


@pytest.mark.parametrize("flags", ["avx512_bf16", "avx2"])
def test_the_cpu_takes_the_place_of_a_card_with_no_less_precision(
    tmp_path: Path, flags: str
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"flags\t\t: fpu {flags}\n")
    parity = WindowSpec(window_voxels=48, overlap=0.5, precision=Precision.FP32)
    assert windows_on_cpu(parity, info) == parity

    fast = WindowSpec(48, 0.5, Precision.BF16, channels_last=True)
    taken = windows_on_cpu(fast, info)
    assert (taken.window_voxels, taken.overlap) == (48, 0.5)
    assert taken.precision is fast_windows("cpu", cpu_info=info).precision


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_card_with_tensor_cores_computes_in_bfloat16() -> None:
    expected = torch.cuda.is_bf16_supported(including_emulation=False)

    assert (fast_windows("cuda").precision is Precision.BF16) == expected
