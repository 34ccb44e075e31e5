"""What a job keeps for its next window goes with the job."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inference.geometry import Geometry
from inference.model_store import ModelStore
from inference.segmenter import SegmenterOptions, SegResNetSegmenter
from inference.volume import Volume
from inference.windows import WindowSpec
from pacs_bridge.late_segmenter import LateSegmenter
from pacs_bridge.memory_ledger import MemoryLedger, MemoryShare

#: Jobs after each other, a thread each, all alive: as in a pipeline that decodes and encodes too.
CODE = """
import sys
import threading
from pathlib import Path
import numpy as np
from inference.engine.heap import keep_heap
from inference.geometry import Geometry
from inference.volume import Volume
from pacs_bridge.late_segmenter import LateSegmenter

class Windows:
    identity = None
    def segment(self, volume, progress=None):
        blocks = [np.ones(40_000_000, dtype=np.uint8) for _ in range(5)]
        del blocks

volume = Volume(np.zeros((2, 4, 4), dtype=np.int16), Geometry.from_affine(np.eye(4), (2, 4, 4)))
keep_heap()
over = threading.Event()

def job(done):
    segmenter = LateSegmenter(Windows, lambda: None) if sys.argv[1] == "late" else Windows()
    segmenter.segment(volume)
    done.set()
    over.wait()

threads = []
for _ in range(3):
    done = threading.Event()
    threads.append(threading.Thread(target=job, args=(done,)))
    threads[-1].start()
    done.wait()
print(next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines()
           if line.startswith("VmRSS")))
over.set()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_a_job_kept_is_free_for_those_beside_it() -> None:
    held_kb = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", CODE, how], check=True, capture_output=True, text=True
            ).stdout
        )
        for how in ("late", "bare")
    }

    assert held_kb["bare"] - held_kb["late"] > 150_000


#: Of a set of names one is asked first: which one, the seed decides.
EARLY = """
import numpy as np
from inference.geometry import Geometry
from inference.segmenter import fitted_segmenter
from pacs_bridge.late_segmenter import LateSegmenter

def get():
    raise AssertionError("loaded before its turn")

late = LateSegmenter(get, lambda: None)
assert fitted_segmenter(late, Geometry.from_affine(np.eye(4), (2, 4, 4))) is late
"""


@pytest.mark.parametrize("seed", ["0", "5"])
def test_a_model_is_not_loaded_while_another_job_has_its_turn(seed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EARLY],
        env=os.environ | {"PYTHONHASHSEED": seed},
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr


def test_what_the_cpu_takes_in_place_of_a_full_card_is_promised(tiny_models: Path) -> None:
    model = ModelStore(tiny_models).load("tiny")
    options = SegmenterOptions(windows=WindowSpec(window_voxels=16))
    asked, on_cpu = (
        SegResNetSegmenter(model, options, None, lambda: None, lambda _device: 1) for _ in range(2)
    )
    asked._options = replace(options, device="cuda:0")
    volume = Volume(
        np.zeros((8, 24, 24), dtype=np.int16),
        Geometry.from_affine(np.diag([6.0, 6.0, 6.0, 1.0])[[2, 1, 0, 3]], (8, 24, 24)),
    )
    ledger = MemoryLedger(lambda: 10**12)
    job, beside = MemoryShare(ledger), MemoryShare(ledger)
    promised: set[int] = set()

    with job.stack():
        LateSegmenter(lambda: asked, lambda: None, job).segment(
            volume, lambda _share: promised.add(ledger.promised_beside(beside))
        )

    assert promised == {on_cpu.main_memory_bytes(volume.geometry)}
    assert asked.main_memory_bytes(volume.geometry) < max(promised)
