"""The whole flow of one series, with a segmenter whose result is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGLSLossless

from dicom_seg.errors import VerificationError
from dicom_seg.read.series import SeriesRules
from dicom_seg.segmentation import Predecessor, SegKind
from dicom_seg.synthetic.options import PixelFormat
from inference.errors import ModelError
from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.reasons import Reason
from inference.segmenter import Progress, Segmenter
from inference.structures import STRUCTURE_BY_NAME
from inference.volume import PADDING_HU, Volume
from pacs_bridge import process
from pacs_bridge.demo_score import decode
from pacs_bridge.process import (
    EarlierResult,
    ProcessOptions,
    SeriesSource,
    process_series,
)
from pacs_bridge.report import LeftOutInstance, SeriesReport
from pacs_bridge.stopwatch import Stage

CREATED = datetime(2026, 11, 21, 20, 15, tzinfo=UTC)
LIVER, SPLEEN = (STRUCTURE_BY_NAME[name].id for name in ("liver", "spleen"))

#: All but fetching, which is done before.
OWN_STAGES = list(Stage)[1:]


def _run(
    paths: list[Path], segmenter: Segmenter, folder: Path, options: ProcessOptions | None = None
) -> SeriesReport:
    source = SeriesSource(tuple(paths), CREATED)
    return process_series(source, segmenter, options or ProcessOptions(), folder)


def test_both_kinds_hold_the_bright_voxels_in_patient_millimetres(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    report = _run(make_series(bright_volume), bright_segmenter, tmp_path / "out")

    (stack,) = report.stacks
    assert [output.kind for output in stack.outputs] == ["labelmap", "binary"]
    for output in stack.outputs:
        found = decode(tmp_path / "out" / output.file, bright_volume.geometry)
        np.testing.assert_array_equal(found.labels > 0, bright_volume.hu >= 300)
        assert found.present() == tuple(sorted((LIVER, SPLEEN)))
    assert bright_segmenter.calls == 1


def test_the_report_names_inputs_volumes_versions_times_and_outputs(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    paths = make_series(bright_volume)
    report = _run(paths, bright_segmenter, tmp_path / "out")

    assert SeriesReport.read(tmp_path / "out" / "report.json") == report
    assert report.ending.outcome == "process"
    first = pydicom.dcmread(paths[0], stop_before_pixels=True)
    assert report.series.series_instance_uid == first.SeriesInstanceUID
    (stack,) = report.stacks
    assert {used.sop_instance_uid for used in stack.used} == {
        pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in paths
    }
    voxel_ml = 3.0 * 4.0 * 3.0 / 1000
    assert {each.name: each.volume_ml for each in stack.structures} == {
        "liver": pytest.approx(6 * 10 * 8 * voxel_ml, abs=1e-3),
        "spleen": pytest.approx(6 * 10 * 9 * voxel_ml, abs=1e-3),
    }
    assert report.model is not None
    assert (report.model.name, report.model.digest) == ("bright", "b" * 64)
    assert {"numpy", "pydicom", "torch"} <= report.software.libraries.keys()
    assert list(report.timings_s) == OWN_STAGES
    assert report.peak_memory_bytes > 10_000_000
    for output in stack.outputs:
        ds = pydicom.dcmread(tmp_path / "out" / output.file)
        assert ds.SOPInstanceUID == output.sop_instance_uid
        assert ds.file_meta.TransferSyntaxUID == output.transfer_syntax_uid


def test_the_report_holds_no_patient_data(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    canary = {"PatientName": "Canary^Yellow", "PatientID": "CANARY-7", "AccessionNumber": "CAN7"}
    _run(make_series(bright_volume, overrides=canary), bright_segmenter, tmp_path / "out")
    text = (tmp_path / "out" / "report.json").read_text().lower()
    assert "canary" not in text
    assert "can7" not in text


def test_the_same_files_in_any_order_give_the_same_bytes(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    paths = make_series(bright_volume)
    shuffled = [paths[i] for i in rng.permutation(len(paths))]
    first = _run(paths, bright_segmenter, tmp_path / "a")
    second = _run(shuffled, bright_segmenter, tmp_path / "b")
    assert first.stacks == second.stacks
    for name in ("seg-binary.dcm", "seg-labelmap.dcm"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_only_the_kinds_that_are_asked_for_are_made(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    options = ProcessOptions(kinds=(SegKind.BINARY,))
    _run(make_series(bright_volume), bright_segmenter, tmp_path / "out", options)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"seg-binary.dcm", "report.json"}


def test_a_series_that_is_skipped_gives_a_report_and_nothing_else(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    options = ProcessOptions(rules=SeriesRules(min_slices=50))
    report = _run(make_series(bright_volume), bright_segmenter, tmp_path / "out", options)
    assert (report.ending.outcome, report.ending.reason) == ("skip", Reason.TOO_FEW_SLICES)
    assert len(report.left_out) == 12
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.json"]
    assert bright_segmenter.calls == 0


def test_a_scan_without_any_structure_is_skipped_as_empty(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    tmp_path: Path,
    bright_segmenter: Segmenter,
) -> None:
    dark = Volume(np.full_like(bright_volume.hu, -1000), bright_volume.geometry)
    report = _run(make_series(dark), bright_segmenter, tmp_path / "out")
    assert (report.ending.outcome, report.ending.reason) == ("skip", Reason.EMPTY_RESULT)
    assert report.stacks[0].reason is Reason.EMPTY_RESULT
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.json"]


def test_a_truncated_slice_refuses_the_series_and_names_the_instance(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    paths = make_series(bright_volume)
    uid = pydicom.dcmread(paths[5]).SOPInstanceUID
    paths[5].write_bytes(paths[5].read_bytes()[:-200])
    report = _run(paths, bright_segmenter, tmp_path / "out")
    assert (report.ending.outcome, report.ending.reason) == ("refuse", Reason.CORRUPT_PIXEL_DATA)
    assert uid in report.ending.detail + str(report.left_out)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.json"]


def test_a_slice_that_does_not_decode_refuses_the_series_and_names_the_instance(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    paths = make_series(bright_volume, transfer_syntax_uid=JPEGLSLossless)
    ds = pydicom.dcmread(paths[5])
    spoiled = bytearray(paths[5].read_bytes())
    middle = spoiled.find(b"\xff\xda") + 12  # behind the start of scan: the header stays good
    spoiled[middle : middle + 40] = b"\xff\xd9" * 20
    paths[5].write_bytes(spoiled)
    ending = _run(paths, bright_segmenter, tmp_path / "out").ending
    assert (ending.outcome, ending.reason) == ("refuse", Reason.CORRUPT_PIXEL_DATA)
    assert ds.SOPInstanceUID in ending.detail
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.json"]
    assert SeriesReport.read(tmp_path / "out" / "report.json").ending == ending


def test_an_error_in_the_second_stack_leaves_nothing_of_the_first(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    paths = make_series(bright_volume, stack=1, acquisition_number=1)
    paths += make_series(bright_volume, stack=2, acquisition_number=2)

    class OnceOnly:
        identity = bright_segmenter.identity

        def segment(self, volume: Volume, progress: Progress | None = None) -> LabelMap:
            if bright_segmenter.calls:
                raise ModelError(Reason.MODEL_ERROR, "values are not finite")
            return bright_segmenter.segment(volume, progress)

    with pytest.raises(ModelError):
        _run(paths, OnceOnly(), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_series_that_does_not_fit_into_memory_is_refused_before_it_is_read(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    stages: list[Stage] = []

    class TooLarge:
        identity = bright_segmenter.identity

        def main_memory_bytes(self, geometry: Geometry) -> int:
            return 0

        def fitted(self, scans: Sequence[Geometry], **_: object) -> Segmenter:
            assert [scan.shape for scan in scans] == [bright_volume.hu.shape]
            raise ModelError(Reason.OOM_CPU, "9.00 GB needed, 1.00 GB available")

        def segment(self, volume: Volume, progress: Progress | None = None) -> LabelMap:
            raise AssertionError("unreachable")

    source = SeriesSource(tuple(make_series(bright_volume)), datetime.now(UTC))
    with pytest.raises(ModelError, match="oom-cpu"):
        process_series(
            source,
            TooLarge(),
            ProcessOptions(),
            tmp_path / "out",
            lambda stage, _: stages.append(stage),
        )
    assert set(stages) == {Stage.EXAMINE}


def test_the_report_says_how_the_segmenter_ran(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    class Fitted:
        identity = dataclasses.replace(
            bright_segmenter.identity, execution=(("estimated_memory", "0.10 GB"),)
        )
        segment = bright_segmenter.segment

    class Fitting:
        identity = bright_segmenter.identity
        segment = bright_segmenter.segment

        def main_memory_bytes(self, geometry: Geometry) -> int:
            return 0

        def fitted(self, scans: Sequence[Geometry], **_: object) -> Segmenter:
            return Fitted()

    report = _run(make_series(bright_volume), Fitting(), tmp_path / "out")
    assert report.model is not None
    assert dict(report.model.execution) == {"estimated_memory": "0.10 GB"}


def test_the_report_says_of_each_stack_how_the_segmenter_was_set(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    class FallsToTheCpu:
        identity = bright_segmenter.identity
        settings = iter(["fp32", "bf16"])

        def segment(self, volume: Volume, progress: Progress | None = None) -> LabelMap:
            parameters = (("precision", next(self.settings)), ("spacing_mm", "3"))
            self.identity = dataclasses.replace(self.identity, parameters=parameters)
            return bright_segmenter.segment(volume, progress)

    paths = make_series(bright_volume, stack=1, acquisition_number=1)
    paths += make_series(bright_volume, stack=2, acquisition_number=2)

    report = _run(paths, FallsToTheCpu(), tmp_path / "out")

    assert [dict(each.parameters) for each in report.stacks] == [
        {"precision": "fp32", "spacing_mm": "3"},
        {"precision": "bf16", "spacing_mm": "3"},
    ]
    assert report.model is not None
    assert dict(report.model.parameters) == {"spacing_mm": "3"}
    assert report.precision == "bf16 fp32"
    assert SeriesReport.read(tmp_path / "out" / "report.json") == report


def _looking_for(segmenter: Segmenter, *names: str) -> Segmenter:
    """The same segmenter as a route with ``structures`` has it."""

    class Chosen:
        identity = dataclasses.replace(
            segmenter.identity, parameters=(("structures", " ".join(names)),)
        )
        segment = segmenter.segment

    return Chosen()


def test_a_result_of_chosen_structures_is_not_told_as_a_whole_one(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    segmenter = _looking_for(bright_segmenter, "liver", "spleen")

    report = _run(make_series(bright_volume), segmenter, tmp_path / "out")

    findings = {each.reason: each.detail for each in report.stacks[0].findings}
    assert findings[Reason.CHOSEN_STRUCTURES] == "liver, spleen"
    ds = pydicom.dcmread(tmp_path / "out" / "seg-binary.dcm", stop_before_pixels=True)
    assert (
        "2 of the 2 wanted structures (liver, spleen) found; no others" in ds.DerivationDescription
    )
    whole = _run(make_series(bright_volume), bright_segmenter, tmp_path / "whole")
    assert Reason.CHOSEN_STRUCTURES not in [each.reason for each in whole.stacks[0].findings]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "no structure in any stack"),
        (("kidney_left",), "none of the wanted structures in any stack"),
    ],
)
def test_a_result_without_any_structure_says_what_was_looked_for(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
    names: tuple[str, ...],
    said: str,
) -> None:
    empty = Volume(np.full_like(bright_volume.hu, -1000), bright_volume.geometry)

    report = _run(make_series(empty), _looking_for(bright_segmenter, *names), tmp_path / "out")

    assert (report.ending.reason, report.ending.detail) == (Reason.EMPTY_RESULT, said)


def test_the_report_says_of_each_stack_how_the_segmenter_ran(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    fitted_to: list[Sequence[Geometry]] = []

    class Fitting:
        identity = bright_segmenter.identity

        def main_memory_bytes(self, geometry: Geometry) -> int:
            return 0

        def fitted(self, scans: Sequence[Geometry], **_: object) -> Segmenter:
            fitted_to.append(scans)
            return self

        def segment(self, volume: Volume, progress: Progress | None = None) -> LabelMap:
            facts = (("device", "cpu"), ("outside_region", f"{volume.hu.shape[0]}.0%"))
            self.identity = dataclasses.replace(self.identity, execution=facts)
            return bright_segmenter.segment(volume, progress)

    planes = bright_volume.geometry
    shorter = Volume(
        bright_volume.hu[:11],
        Geometry((11, 24, 32), planes.origins_mm[:11], planes.row_step_mm, planes.column_step_mm),
    )
    paths = make_series(bright_volume, stack=1, acquisition_number=1)
    paths += make_series(shorter, stack=2, acquisition_number=2)

    report = _run(paths, Fitting(), tmp_path / "out")

    assert [[scan.shape[0] for scan in scans] for scans in fitted_to] == [[12, 11]]
    assert [dict(each.execution) for each in report.stacks] == [
        {"device": "cpu", "outside_region": "12.0%"},
        {"device": "cpu", "outside_region": "11.0%"},
    ]
    assert report.model is not None
    assert dict(report.model.execution) == {"device": "cpu"}
    assert SeriesReport.read(tmp_path / "out" / "report.json") == report


def test_a_second_call_removes_the_result_of_the_first_and_nothing_else(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    paths = make_series(bright_volume)
    _run(paths, bright_segmenter, tmp_path / "out")
    (tmp_path / "out" / "seg-mine.dcm").write_text("mine")
    _run(paths[:3], bright_segmenter, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.json", "seg-mine.dcm"}


def test_a_segmentation_that_is_not_verified_does_not_stay(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def mirrored(labels, plan, request, path):
        flipped = dataclasses.replace(labels, labels=labels.labels[:, :, ::-1].copy())
        return write(flipped, plan, request, path)

    write = process.write_segmentation
    monkeypatch.setattr(process, "write_segmentation", mirrored)
    with pytest.raises(VerificationError):
        _run(make_series(bright_volume), bright_segmenter, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_no_result_has_its_name_before_all_of_the_series_are_verified(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = make_series(bright_volume, stack=1, acquisition_number=1)
    paths += make_series(bright_volume, stack=2, acquisition_number=2)
    seen: list[list[str]] = []
    verify = process.verify_segmentation

    def watched(path, labels, plan, request):
        seen.append([each.name for each in (tmp_path / "out").glob("*.dcm")])
        verify(path, labels, plan, request)

    monkeypatch.setattr(process, "verify_segmentation", watched)
    report = _run(paths, bright_segmenter, tmp_path / "out")
    assert seen == [[]] * 4
    named = {output.file for stack in report.stacks for output in stack.outputs}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*named, "report.json"}


def test_stacks_that_an_attribute_separates_give_one_result_each(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    half = np.where(bright_volume.hu > 800, np.int16(-1000), bright_volume.hu)
    darker = Volume(half, bright_volume.geometry)
    paths = make_series(bright_volume, stack=1, acquisition_number=1)
    paths += make_series(darker, stack=2, acquisition_number=2)

    report = _run(paths, bright_segmenter, tmp_path / "out")

    assert len(report.stacks) == 2
    files = {output.file for stack in report.stacks for output in stack.outputs}
    assert files == {f"stack{n}-seg-{kind}.dcm" for n in (0, 1) for kind in SegKind}
    uids = {output.sop_instance_uid for stack in report.stacks for output in stack.outputs}
    assert len(uids) == 4
    assert {len(stack.structures) for stack in report.stacks} == {1, 2}


def test_the_report_names_what_separates_stacks_and_not_its_value(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    values = ("Agent of Mr Muster born 1950", "none")
    paths = [
        path
        for number, value in enumerate(values, start=1)
        for path in make_series(
            bright_volume, stack=number, overrides={"ContrastBolusAgent": value}
        )
    ]

    report = _run(paths, bright_segmenter, tmp_path / "out")

    assert [stack.separated_by for stack in report.stacks] == [
        "ContrastBolusAgent, 1 of 2",
        "ContrastBolusAgent, 2 of 2",
    ]
    assert "Muster" not in (tmp_path / "out" / "report.json").read_text(encoding="utf-8")


def test_a_later_revision_names_the_result_that_it_replaces(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    paths = make_series(bright_volume)
    first = _run(paths, bright_segmenter, tmp_path / "a")
    used = first.stacks[0].used
    earlier = tuple(
        EarlierResult(
            SegKind(output.kind),
            Predecessor(output.sop_class_uid, output.sop_instance_uid, output.series_instance_uid),
            frozenset((plane.sop_instance_uid, plane.frame_number) for plane in used),
        )
        for output in first.stacks[0].outputs
    )
    source = SeriesSource(tuple(paths), CREATED, revision=2, predecessors=earlier)

    second = process_series(source, bright_segmenter, ProcessOptions(), tmp_path / "b")

    for old, new in zip(first.stacks[0].outputs, second.stacks[0].outputs, strict=True):
        assert old.sop_instance_uid != new.sop_instance_uid
        ds = pydicom.dcmread(tmp_path / "b" / new.file)
        assert old.sop_instance_uid in str(ds)


def test_what_was_set_aside_is_listed_with_what_was_left_out(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    aside = LeftOutInstance("q/1", "1.2.3", None, Reason.CONFLICTING_INSTANCE, "in quarantine")
    source = SeriesSource(tuple(make_series(bright_volume)), CREATED, set_aside=(aside,))
    report = process_series(source, bright_segmenter, ProcessOptions(), tmp_path / "out")
    assert report.left_out == (aside,)


def test_progress_goes_through_the_stages_in_order(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    told: list[tuple[Stage, float]] = []
    source = SeriesSource(tuple(make_series(bright_volume)), CREATED)
    options = ProcessOptions(kinds=(SegKind.LABELMAP,))
    process_series(
        source, bright_segmenter, options, tmp_path / "out", lambda *now: told.append(now)
    )
    assert list(dict.fromkeys(stage for stage, _ in told)) == OWN_STAGES
    for stage in OWN_STAGES:
        fractions = [fraction for each, fraction in told if each is stage]
        assert (fractions[0], fractions[-1]) == (0.0, 1.0)
        assert fractions == sorted(fractions)


def test_a_demonstration_model_is_named_as_such_in_report_and_object(
    make_series: Callable[..., list[Path]], bright_volume: Volume, tmp_path: Path, bright_segmenter
) -> None:
    segmenter = type(bright_segmenter)(demonstration=True)
    report = _run(make_series(bright_volume), segmenter, tmp_path / "out")
    reasons = [finding.reason for finding in report.stacks[0].findings]
    assert Reason.MODEL_FOR_DEMONSTRATION in reasons
    seg = hd.seg.segread(tmp_path / "out" / "seg-labelmap.dcm")
    assert "demonstration" in (seg.SeriesDescription + seg.ContentDescription).lower()


def test_a_structure_that_the_field_of_reconstruction_cuts_is_marked_truncated(
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    bright_segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    bright_volume.hu[:, :, 29:] = PADDING_HU
    pixels = PixelFormat(bits_stored=12, signed=False, rescale=((1.0, -1024.0),), padding=(0, 0))

    report = _run(make_series(bright_volume, pixels=pixels), bright_segmenter, tmp_path / "out")

    (stack,) = report.stacks
    assert [each.name for each in stack.structures if each.truncated] == ["spleen"]
    assert Reason.TRUNCATED_STRUCTURE in {finding.reason for finding in stack.findings}
