"""A run in a process of its own with a segmenter of one rule, for tests that end such processes.

``python fast_run.py RUN OUT``: each inference adds a byte to the file ``inferences`` beside RUN;
``ready`` is said when the run begins.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import numpy as np

from dicom_seg.read.examination import SeriesRules
from inference.identity import SegmenterIdentity
from inference.label_map import LabelMap
from pacs_bridge.archive.own_bridge import OwnWork, own_config
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.archive.recipe import Recipe
from pacs_bridge.archive.run_log import alone
from pacs_bridge.archive.running import OwnRun
from pacs_bridge.archive.series_book import SeriesBook
from pacs_bridge.archive.window import Pace
from pacs_bridge.archive.work_process import Leaving
from pacs_bridge.clock import SystemClock

#: A series with such a value has a segmenter fail in a way that nobody foresaw.
FAULTY_HU = 901
#: The same: it hangs.
HANGING_HU = 902


class BrightSegmenters:
    """In the place of ``WarmSegmenters``: bone-bright is liver."""

    def __init__(self, inferences: Path) -> None:
        self._inferences = inferences

    def get(self, *_: object) -> BrightSegmenters:
        return self

    def device_computes(self) -> bool:
        return True

    @property
    def identity(self) -> SegmenterIdentity:
        return SegmenterIdentity("bright", "1", "b" * 64, False, "tests", (), "a threshold")

    def segment(self, volume, progress=None) -> LabelMap:  # type: ignore[no-untyped-def]
        with self._inferences.open("ab", buffering=0) as file:
            file.write(b"x")
        if volume.hu.max() == FAULTY_HU:
            raise RuntimeError("a fault that nobody foresaw")
        if volume.hu.max() == HANGING_HU:
            threading.Event().wait()
        return LabelMap(np.where(volume.hu >= 300, 5, 0).astype(np.uint8), volume.geometry)


def run(
    run_folder: Path, out: Path, recipe_digest: str, job_timeout_s: float | None, leaving: Leaving
) -> bool:
    """Run a plan; gives whether all is over."""
    recipe = Recipe("bright", "b" * 64, recipe_digest)
    plan = PlanFile(run_folder)
    SeriesBook(plan).refresh(recipe.digest)
    plan.close()
    work = OwnWork("bright", None, ("labelmap",), job_timeout_s=job_timeout_s)
    config = own_config(run_folder, work, SeriesRules())
    segmenters = BrightSegmenters(run_folder.parent / "inferences")
    own = OwnRun(run_folder, config, recipe, out, {}, segmenters)
    os.write(1, b"ready\n")
    state = own.work(Pace(), leaving, SystemClock(), lambda *_: None, lambda _error: None)
    return state.is_over


def work(run_folder: Path, out: Path, leaving: Leaving) -> int:
    """What ``keep_working`` has done: a series may take five seconds."""
    run(run_folder, out, "recipe", 5.0, leaving)
    return 0


def main() -> None:
    run_folder, out = (Path(text) for text in sys.argv[1:3])
    leaving = Leaving(threading.Event(), threading.Event())
    with alone(run_folder):
        is_over = run(run_folder, out, "recipe", None, leaving)
    sys.exit(0 if is_over else 1)


if __name__ == "__main__":
    main()
