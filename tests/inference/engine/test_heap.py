"""Freed memory stays with a process that asked for it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CODE = """
import sys
import numpy as np
from pathlib import Path
from inference.engine.heap import keep_heap

kept = keep_heap() if sys.argv[1] == "keep" else None
block = np.ones(200_000_000, dtype=np.uint8)
del block
held_kb = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines()
               if line.startswith("VmRSS"))
print(kept, held_kb)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_blocks_are_kept_for_the_next_window() -> None:
    outputs = {
        mode: subprocess.run(
            [sys.executable, "-c", CODE, mode], check=True, capture_output=True, text=True
        ).stdout.split()
        for mode in ("keep", "usual")
    }

    assert outputs["keep"][0] == "True"
    assert int(outputs["keep"][1]) - int(outputs["usual"][1]) > 180_000
