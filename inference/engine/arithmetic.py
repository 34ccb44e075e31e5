"""Which arithmetic the machine at hand does fast."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from inference.windows import Precision, WindowSpec

#: Flags of processors that multiply bfloat16 in hardware (Linux, x86-64).
_BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})
_CPU_INFO = Path("/proc/cpuinfo")


def fast_windows(
    device: str, precision: Precision | None = None, cpu_info: Path = _CPU_INFO
) -> WindowSpec:
    """The published windows in the arithmetic that is fast on a device.

    bfloat16 where the processor (AMX, AVX512-BF16) or the card has it, otherwise single
    precision; channels last in memory but for single precision on a card.

    Parameters
    ----------
    device
        As torch names it.
    precision
        In place of what is found.
    cpu_info
        Where Linux describes the processor; without it there is no bfloat16.
    """
    on_cpu = device.split(":")[0] == "cpu"
    chosen = precision or (_cpu_precision(cpu_info) if on_cpu else _card_precision(device))
    channels_last = on_cpu or chosen is Precision.BF16
    return dataclasses.replace(WindowSpec(), precision=chosen, channels_last=channels_last)


def windows_on_cpu(asked: WindowSpec, cpu_info: Path = _CPU_INFO) -> WindowSpec:
    """What takes the place of windows that were to run on a card.

    Their size and overlap, and never less precision than was asked for: what is in single
    precision stays as it is, layout included, so that parity stays parity.

    Parameters
    ----------
    asked
        For the card.
    cpu_info
        As ``fast_windows``.
    """
    if asked.precision is Precision.FP32:
        return asked
    fast = fast_windows("cpu", cpu_info=cpu_info)
    return dataclasses.replace(asked, precision=fast.precision, channels_last=fast.channels_last)


def forbid_tf32() -> None:
    """Have cards multiply single precision in single precision, from now on in this process.

    torch lets cuDNN convolve float32 in TF32, which rounds to 10 bits, where a card has it. It is
    not allowed again afterwards: the setting is that of all threads, and others may compute.
    """
    import torch

    # by the older names: after the newer ones torch refuses to tell those who ask by these
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def _cpu_precision(cpu_info: Path) -> Precision:
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return Precision.FP32
    flags = next((line.split(":", 1)[1] for line in lines if line.startswith("flags")), "")
    return Precision.FP32 if _BF16_FLAGS.isdisjoint(flags.split()) else Precision.BF16


def _card_precision(device: str) -> Precision:
    import torch

    major, _ = torch.cuda.get_device_capability(device)
    return Precision.BF16 if major >= 8 else Precision.FP32  # tensor cores for it since Ampere


def threads() -> int:
    """How many the network has on a CPU."""
    import torch

    return torch.get_num_threads()
