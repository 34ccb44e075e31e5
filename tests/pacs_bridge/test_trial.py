"""What is tried without a job."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inference.errors import ModelError
from inference.label_map import LabelMap
from inference.reasons import Reason
from inference.segmenter import Segmenter
from inference.volume import Volume
from pacs_bridge.errors import TransientError
from pacs_bridge.models import SegmenterChoice, model_stores, open_segmenter
from pacs_bridge.trial import TRIAL_SHAPE, Trials, try_folder, try_segmenter, try_segmenters


class Seeing:
    """Keeps what it is given."""

    def __init__(self, like: Segmenter) -> None:
        self.identity = like.identity
        self._like = like
        self.volumes: list[Volume] = []

    def segment(self, volume: Volume, progress: Callable[[float], None] | None = None) -> LabelMap:
        self.volumes.append(volume)
        return self._like.segment(volume, progress)


def test_a_block_of_water_with_axes_along_those_of_the_patient_is_segmented(
    bright_segmenter: Segmenter,
) -> None:
    seeing = Seeing(bright_segmenter)
    try_segmenter(seeing)

    (volume,) = seeing.volumes
    assert volume.geometry.shape == TRIAL_SHAPE
    assert (volume.hu == 0).mean() > 0.2
    np.testing.assert_allclose(volume.geometry.lps_mm([1, 2, 3]), [9, 6, 3])


def test_the_model_that_the_package_carries_passes() -> None:
    (store,) = model_stores(None)
    try_segmenter(open_segmenter(store.names()[0], (store,), SegmenterChoice("cpu")))


def test_one_model_that_can_be_run_is_enough(bright_segmenter: Segmenter) -> None:
    class Away:
        identity = bright_segmenter.identity

        def __init__(self, error: Exception) -> None:
            self._error = error

        def segment(self, volume: Volume, progress: object = None) -> LabelMap:
            raise self._error

    away = Away(TransientError(Reason.MODEL_CHECKSUM, "stale file handle"))
    broken = Away(ModelError(Reason.MODEL_ERROR, "not finite"))
    try_segmenters([away, broken, bright_segmenter])
    with pytest.raises(ModelError) as error:
        try_segmenters([away, broken])
    assert error.value.reason is Reason.MODEL_CHECKSUM


def test_a_folder_that_can_be_written_passes_and_holds_nothing_afterwards(tmp_path: Path) -> None:
    try_folder(tmp_path / "made" / "here")
    assert list((tmp_path / "made" / "here").iterdir()) == []


def test_a_folder_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        try_folder(tmp_path / "file")


def test_a_disk_without_room_for_a_result_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        try_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("reason", "tried"),
    [
        (Reason.MODEL_ERROR, "segmenter"),
        (Reason.OOM_GPU, "segmenter"),
        (Reason.OOM_CPU, "segmenter"),
        (Reason.UNKNOWN_MODEL, "segmenter"),
        (Reason.DISK_FULL, "folder"),
        (Reason.QUEUE_UNAVAILABLE, "folder"),
        (Reason.SOURCE_UNREACHABLE, ""),
        (Reason.SOURCE_INCOMPLETE, ""),
    ],
)
def test_a_failure_is_followed_by_a_trial_of_what_failed(
    tmp_path: Path, bright_segmenter: Segmenter, reason: Reason, tried: str
) -> None:
    class Broken:
        identity = bright_segmenter.identity

        def segment(self, volume: Volume, progress: object = None) -> LabelMap:
            raise ModelError(Reason.MODEL_ERROR, "no")

    trial = Trials(tmp_path / "scratch").after(reason, [Broken()])
    if tried == "segmenter":
        assert trial is not None
        with pytest.raises(ModelError):
            trial()
    elif tried == "folder":
        assert trial is not None
        trial()
        assert (tmp_path / "scratch").is_dir()
    else:
        assert trial is None
