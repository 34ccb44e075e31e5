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


#: A job's thread takes and returns blocks like those of a window, twice; another thread lives.
FAULTS = """
import resource
import threading
import numpy as np
from inference.engine.heap import keep_heap

def windows():
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [np.ones(110_000_000, dtype=np.uint8) for _ in range(3)]
        del blocks
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

keep_heap()
over = threading.Event()
beside = threading.Thread(target=lambda: (bytearray(1000), over.wait()))
beside.start()
job = threading.Thread(target=windows)
job.start()
job.join()
over.set()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_job_on_a_thread_of_its_own_touches_its_blocks_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True
    )

    first, second = map(int, done.stdout.split())
    assert first > 10 * second
