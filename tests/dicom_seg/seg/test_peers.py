"""Other people's readers and validators on our Segmentations."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import ExplicitVRLittleEndian

from dicom_seg.codes import code_of
from dicom_seg.segmentation import Encoding, Predecessor, SegKind
from inference.finding import Finding
from inference.label_map import LabelMap
from inference.reasons import Reason
from inference.structures import structure

TOOLS = Path(sys.executable).parent
SOURCES = ("even", "tilted", "uneven", "multiframe")
ENCODINGS = (
    (SegKind.BINARY, Encoding.NATIVE),
    (SegKind.BINARY, Encoding.DEFLATED),
    (SegKind.LABELMAP, Encoding.RLE),
    (SegKind.LABELMAP, Encoding.NATIVE),
)


def segment_numbers(labels: LabelMap) -> np.ndarray:
    """``(z, y, x)`` segment numbers: what a reader must find."""
    numbers = np.zeros(256, dtype=np.uint8)
    numbers[list(labels.present())] = np.arange(1, len(labels.present()) + 1)
    return numbers[labels.labels]


def run(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TOOLS / tool, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def inflated(path: Path) -> Path:
    """The same object in a syntax that dciodvfy knows."""
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    plain = path.with_suffix(".plain.dcm")
    ds.save_as(plain, enforce_file_format=True)
    return plain


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("kind", "encoding"), ENCODINGS)
def test_dciodvfy_has_nothing_to_say_against_it(
    make_case, make_request, source, kind, encoding
) -> None:
    path = make_case(source).write(make_request(kind, encoding=encoding)).path
    if encoding is Encoding.DEFLATED:
        path = inflated(path)

    result = run("dciodvfy", path)

    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    assert "Error" not in said


@pytest.mark.parametrize("kind", SegKind)
def test_dciodvfy_accepts_all_that_we_may_add(make_case, make_request, algorithm, kind) -> None:
    case = make_case()
    request = make_request(
        kind,
        revision=2,
        predecessor=Predecessor(kind.sop_class_uid, "2.25.12", "2.25.11"),
        truncated=frozenset(case.labels.present()[:2]),
        findings=(Finding(Reason.GANTRY_TILT, "16.5 degrees"),),
    )

    result = run("dciodvfy", case.write(request).path)

    assert result.returncode == 0
    assert "Error" not in result.stdout + result.stderr


def test_dciodvfy_would_have_seen_a_fault(make_case, make_request) -> None:
    path = make_case().write(make_request()).path
    ds = pydicom.dcmread(path)
    del ds.SegmentSequence[0].SegmentAlgorithmType
    ds.save_as(path)

    assert run("dciodvfy", path).returncode == 1


def decode_with_dcmqi(path: Path) -> SimpleITK.Image:
    """What 3D Slicer reads: segment numbers."""
    folder = path.with_suffix("")
    folder.mkdir()
    result = run(
        "segimage2itkimage", "--inputDICOM", path, "--outputDirectory", folder, "-t", "nrrd",
        "--mergeSegments",
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    (image,) = folder.glob("*.nrrd")
    return SimpleITK.ReadImage(image)


@pytest.mark.parametrize("source", ["even", "multiframe"])
@pytest.mark.parametrize(("kind", "encoding"), ENCODINGS)
def test_slicer_reads_the_same_voxels_at_the_same_millimetres(
    make_case, make_request, source, kind, encoding
) -> None:
    case = make_case(source)

    image = decode_with_dcmqi(case.write(make_request(kind, encoding=encoding)).path)

    found = SimpleITK.GetArrayFromImage(image)
    index = np.argwhere(np.ones_like(found))
    step = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    lps_mm = np.array(image.GetOrigin()) + index[:, ::-1] @ step.T
    zyx = case.labels.geometry.index_of(lps_mm)
    nearest = np.rint(zyx).astype(int)
    np.testing.assert_allclose(zyx, nearest, atol=1e-3)
    expected = segment_numbers(case.labels)
    np.testing.assert_array_equal(found[tuple(index.T)], expected[tuple(nearest.T)])
    assert np.count_nonzero(found) == np.count_nonzero(expected)


@pytest.mark.parametrize("kind", SegKind)
def test_slicer_shows_names_sides_and_colours(make_case, make_request, kind) -> None:
    case = make_case()
    path = case.write(make_request(kind)).path

    decode_with_dcmqi(path)

    said = json.loads((path.with_suffix("") / "meta.json").read_text())["segmentAttributes"]
    segments = {segment["labelID"]: segment for group in said for segment in group}
    for number, structure_id in enumerate(case.labels.present(), start=1):
        segment, code = segments[number], code_of(structure_id)
        side = segment.get("SegmentedPropertyTypeModifierCodeSequence", {}).get("CodeMeaning")
        assert segment["SegmentLabel"] == code.name
        assert segment["SegmentedPropertyTypeCodeSequence"]["CodeValue"] == code.type.value
        assert side == (code.modifier and code.modifier.meaning)
        assert tuple(segment["recommendedDisplayRGBValue"]) == structure(structure_id).rgb


@pytest.mark.parametrize("kind", SegKind)
def test_slicer_keeps_tilted_slices_but_stacks_them_without_their_shear(
    make_case, make_request, kind
) -> None:
    """A limit of its reader: frames are right in the object, and right in frame-wise viewers."""
    case = make_case("tilted")

    image = decode_with_dcmqi(case.write(make_request(kind)).path)

    found = SimpleITK.GetArrayFromImage(image)
    expected = segment_numbers(case.labels)
    occupied = expected[expected.any(axis=(1, 2))]
    np.testing.assert_array_equal(found[found.any(axis=(1, 2))], occupied)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    np.testing.assert_allclose(direction[:, 2], case.labels.geometry.normal, atol=1e-6)


@pytest.mark.parametrize("kind", SegKind)
def test_slicer_fills_uneven_spacing_with_empty_slices(make_case, make_request, kind) -> None:
    case = make_case("uneven")

    image = decode_with_dcmqi(case.write(make_request(kind)).path)

    found = SimpleITK.GetArrayFromImage(image)
    z = np.flatnonzero(found.any(axis=(1, 2)))
    expected = segment_numbers(case.labels)
    occupied = np.flatnonzero(expected.any(axis=(1, 2)))
    np.testing.assert_array_equal(found[z], expected[occupied])
    np.testing.assert_allclose(
        image.GetOrigin()[2] + z * image.GetSpacing()[2],
        case.labels.geometry.origins_mm[occupied, 2],
        atol=1e-6,
    )


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("kind", "encoding"), ENCODINGS)
def test_highdicom_reads_the_same_voxels_on_the_same_slices(
    make_case, make_request, source, kind, encoding
) -> None:
    case = make_case(source)
    path = case.write(make_request(kind, encoding=encoding)).path

    seg = highdicom.seg.segread(path)

    if source == "multiframe":
        found = seg.get_pixels_by_source_frame(
            case.plan.table.rows[0].sop_instance_uid,
            [row.frame_number for row in case.plan.table.rows],
            combine_segments=True,
            assert_missing_frames_are_empty=True,
        )
    else:
        found = seg.get_pixels_by_source_instance(
            [row.sop_instance_uid for row in case.plan.table.rows],
            combine_segments=True,
            assert_missing_frames_are_empty=True,
        )
    np.testing.assert_array_equal(found, segment_numbers(case.labels))
    assert [seg.get_segment_description(n).segment_label for n in seg.segment_numbers] == [
        structure(i).name for i in case.labels.present()
    ]
    assert seg.number_of_segments == len(case.labels.present())


@pytest.mark.parametrize("kind", SegKind)
def test_highdicom_puts_the_volume_where_it_is(make_case, make_request, kind) -> None:
    case = make_case()

    volume = highdicom.seg.segread(case.write(make_request(kind)).path).get_volume(
        combine_segments=True
    )

    index = np.argwhere(volume.array)
    lps_mm = volume.map_indices_to_reference(index)
    zyx = np.rint(case.labels.geometry.index_of(lps_mm)).astype(int)
    expected = segment_numbers(case.labels)
    np.testing.assert_array_equal(volume.array[tuple(index.T)], expected[tuple(zyx.T)])
    assert len(index) == np.count_nonzero(expected)


@pytest.mark.parametrize(("kind", "encoding"), ENCODINGS)
def test_pydicom_decodes_the_frames(make_case, make_request, kind, encoding) -> None:
    case = make_case()

    ds = pydicom.dcmread(case.write(make_request(kind, encoding=encoding)).path)

    frames = ds.pixel_array
    expected = segment_numbers(case.labels)
    positions = [row.origin_mm for row in case.plan.table.rows]
    for item, frame in zip(ds.PerFrameFunctionalGroupsSequence, frames, strict=True):
        at = item.PlanePositionSequence[0].ImagePositionPatient
        (z,) = [i for i, origin in enumerate(positions) if np.allclose(origin, at, atol=1e-6)]
        if kind is SegKind.BINARY:
            number = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            np.testing.assert_array_equal(frame, expected[z] == number)
        else:
            np.testing.assert_array_equal(frame, expected[z])
