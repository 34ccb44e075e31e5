"""Instances that break off, or are not the first of their name: told before they are believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from inference.reasons import Reason
from pacs_bridge.errors import BridgeError, PermanentError, TransientError
from pacs_bridge.sources.received_instance import CutInstanceError, ReceivedInstance
from pacs_bridge.sources.received_series import ReceivedSeries, SizeLimits, WantedSeries

_DELIMITER_BYTES = 8
#: As long as these syntaxes make it, and ended as JPEG-LS is; nobody decodes it here.
_CODESTREAM = b"\xff\xd8\xff" + bytes(range(1, 120)) * 2 + b"\xff\xd9"


@pytest.fixture
def stored(make_ct: Callable[..., Dataset], tmp_path: Path) -> Callable[..., bytes]:
    """A CT image as the bytes of its file; ``fragments`` makes it encapsulated."""

    def make(
        syntax: str = ExplicitVRLittleEndian,
        fragments: list[bytes] | None = None,
        **attributes: object,
    ) -> bytes:
        ds = make_ct(**attributes)
        ds.file_meta.TransferSyntaxUID = syntax
        ds["PixelData"].VR = "OW"
        if fragments is not None:
            ds.PixelData = encapsulate(fragments)
            ds["PixelData"].is_undefined_length = True
            ds["PixelData"].VR = "OB"
        dcmwrite(tmp_path / "stored.dcm", ds, enforce_file_format=True)
        return (tmp_path / "stored.dcm").read_bytes()

    return make


def _look(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    ReceivedInstance.of(path).check_whole()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_an_image_that_is_cut_within_its_pixels_is_not_whole(
    stored: Callable[..., bytes], tmp_path: Path, syntax: str
) -> None:
    data = stored(syntax)
    _look(tmp_path / "whole", data)
    for missing in range(1, 129):
        with pytest.raises(CutInstanceError) as caught:
            _look(tmp_path / "cut", data[:-missing])
        assert caught.value.reason is Reason.SOURCE_INCOMPLETE
        assert f"{128 - missing} of 128 bytes" in caught.value.detail


def test_an_image_that_is_cut_within_its_header_is_never_taken(
    stored: Callable[..., bytes], tmp_path: Path
) -> None:
    data = stored()
    for size in range(0, len(data) - 128, 3):
        with pytest.raises(BridgeError) as caught:
            _look(tmp_path / "cut", data[:size])
        assert caught.value.reason in (
            Reason.SOURCE_INCOMPLETE,
            Reason.BAD_ANSWER,  # within its file meta information
            Reason.UNSUPPORTED_SYNTAX,  # within the transfer syntax itself
            Reason.CORRUPT_PIXEL_DATA,  # just between two elements
        )


@pytest.mark.parametrize(
    ("syntax", "fragments"),
    [
        (RLELossless, [bytes(range(1, 101))]),
        (JPEGLSLossless, [_CODESTREAM]),
        (JPEGLSLossless, [_CODESTREAM[:100] + b"\xff", _CODESTREAM]),
    ],
    ids=["rle", "jpeg-ls", "two-fragments"],
)
def test_an_encapsulated_image_that_is_cut_is_not_whole(
    stored: Callable[..., bytes], tmp_path: Path, syntax: str, fragments: list[bytes]
) -> None:
    frames = {} if len(fragments) == 1 else {"NumberOfFrames": len(fragments)}
    data = stored(syntax, fragments, **frames)
    _look(tmp_path / "whole", data)
    for missing in range(1, sum(map(len, fragments))):
        if missing == _DELIMITER_BYTES:
            continue
        with pytest.raises(CutInstanceError):
            _look(tmp_path / "cut", data[:-missing])


def test_an_encapsulated_image_that_lacks_nothing_but_its_delimiter_is_whole(
    stored: Callable[..., bytes], tmp_path: Path
) -> None:
    _look(tmp_path / "rle", stored(RLELossless, [bytes(100)])[:-_DELIMITER_BYTES])
    _look(tmp_path / "jpeg", stored(JPEGLSLossless, [_CODESTREAM])[:-_DELIMITER_BYTES])
    without_its_end = stored(JPEGLSLossless, [_CODESTREAM[:100]])[:-_DELIMITER_BYTES]
    with pytest.raises(CutInstanceError):
        _look(tmp_path / "cut", without_its_end)


def test_fewer_frames_than_told_and_no_delimiter_are_cut(
    stored: Callable[..., bytes], tmp_path: Path
) -> None:
    data = stored(RLELossless, [bytes(100)] * 2, NumberOfFrames=3)
    with pytest.raises(CutInstanceError):
        _look(tmp_path / "cut", data[:-_DELIMITER_BYTES])


@pytest.mark.parametrize(
    "attributes",
    [
        {"Rows": 9},
        {"PixelData": bytes(126)},
        {"SOPClassUID": EnhancedCTImageStorage, "NumberOfFrames": 2},
        {"BitsAllocated": 32},
    ],
    ids=["rows", "pixels", "frames", "bits"],
)
def test_pixels_that_are_whole_and_too_few_are_the_archive_s_and_refused(
    stored: Callable[..., bytes], tmp_path: Path, attributes: dict[str, object]
) -> None:
    with pytest.raises(PermanentError) as caught:
        _look(tmp_path / "short", stored(**attributes))
    assert caught.value.reason is Reason.CORRUPT_PIXEL_DATA
    assert "1.2.826.0.1.3680043.8.498.1.1" in caught.value.detail


@pytest.mark.parametrize(
    "attributes",
    [{"PixelData": bytes(140)}, {"Rows": None}, {"BitsAllocated": None}, {"SamplesPerPixel": 3}],
    ids=["padded", "no-rows", "no-bits", "coloured"],
)
def test_what_else_is_odd_of_an_image_is_left_to_its_examination(
    stored: Callable[..., bytes], tmp_path: Path, attributes: dict[str, object]
) -> None:
    _look(tmp_path / "odd", stored(**attributes))


def test_an_object_that_is_no_ct_image_need_not_have_pixels(
    stored: Callable[..., bytes], tmp_path: Path
) -> None:
    data = stored(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", PixelData=b"")
    _look(tmp_path / "report", data)


@pytest.fixture
def series(tmp_path: Path) -> ReceivedSeries:
    uid = "1.2.826.0.1.3680043.8.498.1"
    return ReceivedSeries(
        tmp_path / "got", WantedSeries(uid, f"{uid}.1"), SizeLimits(1 << 20, 1 << 24)
    )


def test_the_same_instance_with_other_bytes_is_a_conflict_and_not_left_out(
    stored: Callable[..., bytes], series: ReceivedSeries
) -> None:
    series.take([stored()])
    series.take([stored()])
    with pytest.raises(PermanentError) as caught:
        series.take([stored(PixelData=bytes(128))])
    assert caught.value.reason is Reason.CONFLICTING_INSTANCE
    assert "1.2.826.0.1.3680043.8.498.1.1" in caught.value.detail
    (kept,) = series.paths
    assert kept.read_bytes() == stored()
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_the_same_instance_stored_by_another_writer_is_no_conflict(
    stored: Callable[..., bytes], series: ReceivedSeries
) -> None:
    data = stored()
    series.take([data])
    version = data.index(b"PYDICOM")  # Implementation Version Name
    series.take([data[:version] + b"ANOTHER" + data[version + 7 :]])
    assert len(series.paths) == 1


def test_a_cut_instance_leaves_nothing_and_can_come_whole(
    stored: Callable[..., bytes], series: ReceivedSeries, tmp_path: Path
) -> None:
    data = stored()
    with pytest.raises(TransientError):
        series.take([data[:-50]])
    assert series.paths == ()
    assert list((tmp_path / "got").iterdir()) == []
    series.take([data])
    assert len(series.paths) == 1
