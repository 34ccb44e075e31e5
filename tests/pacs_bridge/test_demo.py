"""The demo: how it scores, what it decodes, and that it fails where it should."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner

from dicom_seg.segmentation import SegKind
from dicom_seg.synthetic.acquisition import stack
from dicom_seg.synthetic.series import write_ct_series
from inference.identity import SegmenterIdentity
from inference.label_map import LabelMap
from inference.structures import STRUCTURE_BY_NAME, structure
from inference.synthetic.patient import SyntheticPatient, default_geometry
from inference.volume import Volume
from pacs_bridge import demo as demo_module
from pacs_bridge.cli.main import main
from pacs_bridge.demo_score import decode, score
from pacs_bridge.process import ProcessOptions, SeriesSource, process_series

GRID = stack((20, 30, 30), (5.0, 4.0, 4.0))


def _labels(**boxes: tuple[slice, slice, slice]) -> LabelMap:
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    for name, box in boxes.items():
        labels[box] = STRUCTURE_BY_NAME[name].id
    return LabelMap(labels, GRID)


LEFT = (slice(5, 15), slice(10, 20), slice(18, 26))
RIGHT = (slice(5, 15), slice(10, 20), slice(4, 12))
SPOT = (slice(1, 2), slice(1, 3), slice(1, 3))


def test_a_perfect_result_scores_one() -> None:
    truth = _labels(kidney_left=LEFT, kidney_right=RIGHT)
    result = score(truth, truth)
    assert result.mean_dice == 1.0
    assert result.is_good


def test_left_and_right_swapped_is_named_and_is_a_failure() -> None:
    truth = _labels(kidney_left=LEFT, kidney_right=RIGHT)
    result = score(truth, _labels(kidney_left=RIGHT, kidney_right=LEFT))
    assert set(result.swapped) == {"kidney_left", "kidney_right"}
    assert not result.is_good


def test_a_swapped_pair_fails_however_good_the_mean_is() -> None:
    truth = _labels(kidney_left=LEFT, kidney_right=RIGHT, adrenal_gland_left=SPOT)
    found = _labels(kidney_left=LEFT, kidney_right=RIGHT, adrenal_gland_right=SPOT)
    # one gland is missing in the truth: give it a place so that both can be compared
    truth.labels[2, 1:3, 1:3] = STRUCTURE_BY_NAME["adrenal_gland_right"].id
    found.labels[2, 1:3, 1:3] = STRUCTURE_BY_NAME["adrenal_gland_left"].id
    result = score(truth, found)
    assert result.mean_dice == 1.0
    assert not result.is_good


def test_dice_is_what_the_formula_says_and_small_structures_do_not_count() -> None:
    truth = _labels(liver=LEFT, spleen=SPOT)
    found = _labels(liver=(slice(5, 10), slice(10, 20), slice(18, 26)))
    result = score(truth, found)
    dice = {structure(each.structure_id).name: each.dice for each in result.structures}
    assert dice == {"liver": pytest.approx(2 * 400 / (800 + 400)), "spleen": 0.0}
    assert [structure(each.structure_id).name for each in result.counted] == ["liver"]
    assert result.mean_dice == dice["liver"]
    assert not result.is_good


class Oracle:
    """A segmenter that knows the truth."""

    def __init__(self, patient: SyntheticPatient) -> None:
        self._patient = patient

    identity = SegmenterIdentity("oracle", "1", "0" * 64, True, "tests", (), "truth")

    def segment(self, volume: Volume, progress=None) -> LabelMap:
        return self._patient.sample(volume.geometry)[1]


@pytest.mark.parametrize("kind", SegKind)
def test_all_structures_of_a_patient_come_back_through_files_at_their_place(
    kind: SegKind, tmp_path: Path
) -> None:
    patient = SyntheticPatient.from_seed(1)
    volume, truth = patient.sample(default_geometry(patient, (8.0, 5.0, 5.0)))
    paths = write_ct_series(volume, tmp_path / "ct")
    source = SeriesSource(tuple(paths), datetime.now(UTC))
    report = process_series(
        source, Oracle(patient), ProcessOptions(kinds=(kind,)), tmp_path / "out"
    )
    (output,) = report.stacks[0].outputs
    found = decode(tmp_path / "out" / output.file, truth.geometry)
    np.testing.assert_array_equal(found.labels, truth.labels)
    assert score(truth, found).mean_dice == 1.0


def test_sides_are_taken_from_the_words_that_a_reader_sees(tmp_path: Path) -> None:
    patient = SyntheticPatient.from_seed(1)
    volume, _ = patient.sample(default_geometry(patient, (20.0, 12.0, 12.0)))
    paths = write_ct_series(volume, tmp_path / "ct")
    source = SeriesSource(tuple(paths), datetime.now(UTC))
    process_series(source, Oracle(patient), ProcessOptions(kinds=(SegKind.BINARY,)), tmp_path)
    ds = pydicom.dcmread(tmp_path / "seg-binary.dcm")
    for segment in ds.SegmentSequence:
        item = segment.SegmentedPropertyTypeCodeSequence[0]
        for modifier in item.get("SegmentedPropertyTypeModifierCodeSequence", ()):
            modifier.CodeMeaning = {"Left": "Right", "Right": "Left"}[modifier.CodeMeaning]
    ds.save_as(tmp_path / "lying.dcm")

    result = score(
        decode(tmp_path / "seg-binary.dcm", volume.geometry),
        decode(tmp_path / "lying.dcm", volume.geometry),
    )

    assert {"kidney_left", "kidney_right", "humerus_left"} & set(result.swapped)


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = CliRunner().invoke(main, ["demo", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "holds something else" in result.stdout
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_bad_model_goes_the_whole_way_and_fails_honestly(
    tmp_path: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_module, "SPACING_MM", (8.0, 6.0, 6.0))
    out = tmp_path / "demo"
    command = ["demo", "--out", str(out), "--model", "tiny", "--models", str(tiny_models)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1, result.output
    assert "mean Dice 0.0" in result.stdout
    assert "ready: PACSBRIDGE" in result.stderr
    pictures = {path.name for path in out.glob("*.png")}
    assert pictures == {"overlay.png", "axial.png", "coronal.png", "sagittal.png"}
    assert len(list((out / "archive").glob("*.dcm"))) == 1


def test_the_embedded_model_goes_the_whole_way_and_is_good(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["demo", "--out", str(tmp_path / "demo"), "--seed", "7"])
    assert result.exit_code == 0, result.output
    assert "left and right swapped: none" in result.stdout
