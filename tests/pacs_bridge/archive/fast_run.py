"""A run in a process of its own with a segmenter of one rule, for tests that end such processes.

``python fast_run.py RUN OUT INFERENCES``: each inference adds a line to the file INFERENCES;
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
from pacs_bridge.archive.running import Leaving, OwnRun, Pace
from pacs_bridge.archive.series_book import SeriesBook
from pacs_bridge.clock import SystemClock

#: A series with such a value has a segmenter fail in a way that nobody foresaw.
FAULTY_HU = 901


class BrightSegmenters:
    """In the place of ``WarmSegmenters``: bone-bright is liver."""

    def __init__(self, inferences: Path) -> None:
        self._inferences = inferences

    def get(self, _model: str, _cleanup: object = None) -> BrightSegmenters:
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
        return LabelMap(np.where(volume.hu >= 300, 5, 0).astype(np.uint8), volume.geometry)


def main() -> None:
    run_folder, out, inferences = (Path(text) for text in sys.argv[1:4])
    recipe = Recipe("bright", "b" * 64, sys.argv[4] if len(sys.argv) > 4 else "recipe")
    with alone(run_folder):
        plan = PlanFile(run_folder)
        SeriesBook(plan).refresh(recipe.digest)
        plan.close()
        config = own_config(run_folder, OwnWork("bright", None, ("labelmap",)), SeriesRules())
        run = OwnRun(run_folder, config, recipe, out, {}, BrightSegmenters(inferences))
        os.write(1, b"ready\n")
        leaving = Leaving(threading.Event(), threading.Event())
        state = run.work(Pace(), leaving, SystemClock(), lambda _state, _seconds: None)
    sys.exit(0 if state.is_over else 1)


if __name__ == "__main__":
    main()
