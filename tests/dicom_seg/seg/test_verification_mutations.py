"""Every way in which a Segmentation can be wrong is seen, and named without patient data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_seg.errors import VerificationError
from dicom_seg.segmentation import Encoding, SegKind
from dicom_seg.verification import verify_segmentation
from inference.reasons import Reason

NATIVE = tuple((kind, Encoding.NATIVE) for kind in SegKind)


def frames_of(ds: Dataset) -> np.ndarray:
    return ds.pixel_array.copy()


def with_frames(ds: Dataset, frames: np.ndarray) -> None:
    if ds.BitsAllocated == 1:
        value = np.packbits(frames.astype(bool).reshape(-1), bitorder="little").tobytes()
    else:
        value = frames.astype(np.uint8).tobytes()
    ds.PixelData = value + b"\0" * (len(value) % 2)


def mirrored_left_to_right(ds: Dataset) -> None:
    with_frames(ds, frames_of(ds)[:, :, ::-1])


def mirrored_front_to_back(ds: Dataset) -> None:
    with_frames(ds, frames_of(ds)[:, ::-1])


def upside_down(ds: Dataset) -> None:
    with_frames(ds, frames_of(ds)[::-1])


def two_frames_swapped(ds: Dataset) -> None:
    frames = frames_of(ds)
    frames[[3, 4]] = frames[[4, 3]]
    with_frames(ds, frames)


def two_positions_swapped(ds: Dataset) -> None:
    a, b = ds.PerFrameFunctionalGroupsSequence[3:5]
    a.PlanePositionSequence, b.PlanePositionSequence = (
        b.PlanePositionSequence,
        a.PlanePositionSequence,
    )


def one_voxel_off(ds: Dataset) -> None:
    frames = frames_of(ds)
    frames[2, 5, 5] ^= 1
    with_frames(ds, frames)


def shifted_by_half_a_slice(ds: Dataset) -> None:
    for item in ds.PerFrameFunctionalGroupsSequence:
        position = item.PlanePositionSequence[0].ImagePositionPatient
        position[2] = float(position[2]) + 1.25


def shifted_by_a_hair(ds: Dataset) -> None:
    position = ds.PerFrameFunctionalGroupsSequence[5].PlanePositionSequence[0]
    position.ImagePositionPatient[0] = float(position.ImagePositionPatient[0]) + 0.02


def rows_and_columns_swapped(ds: Dataset) -> None:
    orientation = ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    o = list(orientation.ImageOrientationPatient)
    orientation.ImageOrientationPatient = o[3:] + o[:3]


def row_direction_turned(ds: Dataset) -> None:
    orientation = ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    o = list(orientation.ImageOrientationPatient)
    orientation.ImageOrientationPatient = [-v for v in o[:3]] + o[3:]


def spacing_swapped(ds: Dataset) -> None:
    measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = list(measures.PixelSpacing)[::-1]


def wrong_slice_spacing(ds: Dataset) -> None:
    measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.SpacingBetweenSlices = 2.6


def no_slice_spacing(ds: Dataset) -> None:
    del ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices


def no_pixel_measures(ds: Dataset) -> None:
    del ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence


def neighbour_as_source(ds: Dataset) -> None:
    images = [
        item.DerivationImageSequence[0].SourceImageSequence[0]
        for item in ds.PerFrameFunctionalGroupsSequence
    ]
    images[3].ReferencedSOPInstanceUID = images[4].ReferencedSOPInstanceUID


def frame_number_of_a_source_without_frames(ds: Dataset) -> None:
    derivation = ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    derivation.SourceImageSequence[0].ReferencedFrameNumber = 1


def other_purpose(ds: Dataset) -> None:
    derivation = ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    purpose = derivation.SourceImageSequence[0].PurposeOfReferenceCodeSequence[0]
    purpose.CodeValue = "121329"


def no_source(ds: Dataset) -> None:
    del ds.PerFrameFunctionalGroupsSequence[1].DerivationImageSequence


def wrong_dimension_index(ds: Dataset) -> None:
    for item in ds.PerFrameFunctionalGroupsSequence[:2]:
        content = item.FrameContentSequence[0]
        values = content.DimensionIndexValues
        values = [values] if isinstance(values, int) else list(values)
        content.DimensionIndexValues = [*values[:-1], 1]


def other_patient(ds: Dataset) -> None:
    ds.PatientID = "SOMEBODY-ELSE"


def other_patient_name(ds: Dataset) -> None:
    ds.PatientName = "Somebody^Else"


def other_birth_date(ds: Dataset) -> None:
    ds.PatientBirthDate = "19700102"


def no_patient(ds: Dataset) -> None:
    ds.PatientID = ""


def other_study(ds: Dataset) -> None:
    ds.StudyInstanceUID += ".1"


def other_accession(ds: Dataset) -> None:
    ds.AccessionNumber = "X"


def other_frame_of_reference(ds: Dataset) -> None:
    ds.FrameOfReferenceUID += ".1"


def other_source_series(ds: Dataset) -> None:
    ds.ReferencedSeriesSequence[0].SeriesInstanceUID += ".1"


def one_source_instance_less(ds: Dataset) -> None:
    del ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence[4]


def uid_of_the_source(ds: Dataset) -> None:
    ds.SeriesInstanceUID = ds.ReferencedSeriesSequence[0].SeriesInstanceUID


def left_and_right_codes_swapped(ds: Dataset) -> None:
    by_label = {s.SegmentLabel: s for s in ds.SegmentSequence}
    left, right = (
        by_label[name].SegmentedPropertyTypeCodeSequence[0]
        for name in ("kidney_left", "kidney_right")
    )
    keyword = "SegmentedPropertyTypeModifierCodeSequence"
    swapped = right[keyword].value, left[keyword].value
    setattr(left, keyword, swapped[0])
    setattr(right, keyword, swapped[1])


def left_and_right_swapped_with_their_labels(ds: Dataset) -> None:
    """A consistent lie: codes, labels and colours of the two change places."""
    index = {s.SegmentLabel: n for n, s in enumerate(ds.SegmentSequence)}
    a, b = index["kidney_left"], index["kidney_right"]
    first, second = ds.SegmentSequence[a], ds.SegmentSequence[b]
    first.SegmentNumber, second.SegmentNumber = second.SegmentNumber, first.SegmentNumber
    ds.SegmentSequence[a], ds.SegmentSequence[b] = second, first


def no_laterality(ds: Dataset) -> None:
    segment = next(s for s in ds.SegmentSequence if s.SegmentLabel == "rib_left_7")
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    del kind.SegmentedPropertyTypeModifierCodeSequence


def segment_numbers_off_by_one(ds: Dataset) -> None:
    for segment in ds.SegmentSequence:
        segment.SegmentNumber += 1


def other_label(ds: Dataset) -> None:
    ds.SegmentSequence[0].SegmentLabel = "spleen"


def other_colour(ds: Dataset) -> None:
    ds.SegmentSequence[0].RecommendedDisplayCIELabValue = [1, 2, 3]


def other_weights(ds: Dataset) -> None:
    algorithm = ds.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    algorithm.AlgorithmParameters = "weights_sha256=00"


def truncation_invented(ds: Dataset) -> None:
    ds.SegmentSequence[0].SegmentDescription = "Touches the border of the scan"


def a_segment_less(ds: Dataset) -> None:
    del ds.SegmentSequence[-1]


def predecessor_invented(ds: Dataset) -> None:
    item = Dataset()
    item.ReferencedSOPClassUID = ds.SOPClassUID
    item.ReferencedSOPInstanceUID = "1.2.3"
    ds.ReferencedImageSequence = [item]


def other_instance_uid_in_the_file(ds: Dataset) -> None:
    ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3"


def other_matrix(ds: Dataset) -> None:
    ds.Rows, ds.Columns = ds.Columns, ds.Rows


def frames_counted_wrong(ds: Dataset) -> None:
    ds.NumberOfFrames += 1


def cut_off(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData[: len(ds.PixelData) // 4 * 2]


PLACES = (
    (shifted_by_half_a_slice, "mm away|SpacingBetween"),
    (shifted_by_a_hair, "mm away"),
    (rows_and_columns_swapped, "mm away"),
    (row_direction_turned, "mm away"),
    (spacing_swapped, "mm away"),
    (wrong_slice_spacing, "SpacingBetweenSlices"),
    (no_slice_spacing, "SpacingBetweenSlices"),
    (no_pixel_measures, "PixelMeasuresSequence"),
    (two_positions_swapped, "another slice|differ"),
)
VOXELS = (
    (mirrored_left_to_right, "differ"),
    (mirrored_front_to_back, "differ"),
    (upside_down, "differ"),
    (two_frames_swapped, "differ"),
    (one_voxel_off, "differ"),
    (other_matrix, "Rows|Columns"),
    (frames_counted_wrong, "NumberOfFrames"),
    (cut_off, "Pixel Data"),
)
SOURCES = (
    (neighbour_as_source, "frame 4 refers to another slice"),
    (frame_number_of_a_source_without_frames, "frame 1 refers to another slice"),
    (other_purpose, "purpose"),
    (no_source, "00089124"),
    (wrong_dimension_index, "DimensionIndexValues"),
    (other_source_series, "ReferencedSeriesSequence"),
    (one_source_instance_less, "ReferencedInstanceSequence"),
    (uid_of_the_source, "UID of its source"),
)
IDENTITIES = (
    (other_patient, "PatientID"),
    (other_patient_name, "PatientName"),
    (other_birth_date, "PatientBirthDate"),
    (no_patient, "PatientID"),
    (other_study, "StudyInstanceUID"),
    (other_accession, "AccessionNumber"),
    (other_frame_of_reference, "FrameOfReferenceUID"),
    (other_instance_uid_in_the_file, "SOPInstanceUID"),
)
SEGMENTS = (
    (left_and_right_codes_swapped, "SegmentLabel"),
    (left_and_right_swapped_with_their_labels, "segments are structures"),
    (no_laterality, "no structure has its codes"),
    (segment_numbers_off_by_one, "has number"),
    (a_segment_less, "segments are structures"),
    (other_label, "SegmentLabel"),
    (other_colour, "colour"),
    (other_weights, "weights"),
    (truncation_invented, "truncation"),
    (predecessor_invented, "predecessor"),
)


@pytest.mark.parametrize(
    ("mutate", "named"),
    PLACES + VOXELS + SOURCES + IDENTITIES + SEGMENTS,
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize(("kind", "encoding"), NATIVE)
def test_what_was_not_meant_is_named(
    make_case, make_request, kind, encoding, mutate: Callable[[Dataset], None], named: str
) -> None:
    case = make_case()
    request = make_request(kind, encoding=encoding)
    path = case.write(request).path
    ds = pydicom.dcmread(path)
    mutate(ds)
    ds.save_as(path)

    with pytest.raises(VerificationError, match=named) as error:
        verify_segmentation(path, case.labels, case.plan, request)

    assert error.value.reason is Reason.VERIFICATION_FAILED
    assert str(ds.PatientName) not in error.value.detail or not ds.PatientName
    assert "Synthetic" not in error.value.detail


def a_frame_less(ds: Dataset) -> None:
    with_frames(ds, frames_of(ds)[:-1])
    del ds.PerFrameFunctionalGroupsSequence[-1]
    ds.NumberOfFrames -= 1


def test_a_missing_frame_is_missed(make_case, make_request) -> None:
    case = make_case()
    request = make_request(SegKind.BINARY)
    path = case.write(request).path
    ds = pydicom.dcmread(path)
    a_frame_less(ds)
    ds.save_as(path)

    with pytest.raises(VerificationError, match="has no frame on plane"):
        verify_segmentation(path, case.labels, case.plan, request)


def test_an_empty_plane_may_go_without_a_frame_but_not_a_full_one(make_case, make_request) -> None:
    case = make_case()
    request = make_request(SegKind.LABELMAP, encoding=Encoding.NATIVE)
    path = case.write(request).path
    ds = pydicom.dcmread(path)
    assert not ds.pixel_array[-1].any()
    a_frame_less(ds)
    ds.save_as(path)
    verify_segmentation(path, case.labels, case.plan, request)
    while ds.pixel_array[-1].any() == 0:
        a_frame_less(ds)
    a_frame_less(ds)
    ds.save_as(path)

    with pytest.raises(VerificationError, match="has no frame on plane"):
        verify_segmentation(path, case.labels, case.plan, request)


@pytest.mark.parametrize("kind", SegKind)
def test_a_frame_that_comes_twice_is_seen(make_case, make_request, kind) -> None:
    case = make_case()
    request = make_request(kind, encoding=Encoding.NATIVE)
    path = case.write(request).path
    ds = pydicom.dcmread(path)
    frames = frames_of(ds)
    with_frames(ds, np.concatenate([frames, frames[2:3]]))
    ds.PerFrameFunctionalGroupsSequence.append(ds.PerFrameFunctionalGroupsSequence[2])
    ds.NumberOfFrames += 1
    ds.save_as(path)

    with pytest.raises(VerificationError, match="another frame"):
        verify_segmentation(path, case.labels, case.plan, request)
