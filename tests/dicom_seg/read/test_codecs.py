"""Compressed frames: what they say of themselves, what they hold, and what is refused."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np
import pytest

from dicom_seg.read.codecs import CodecError, decode_frame
from dicom_seg.read.codestream import CodestreamError, jpeg2000_header, jpeg_header
from dicom_seg.read.transfer_syntax import PixelEncoding

SHAPE = (24, 40)


@pytest.fixture
def samples(rng):
    """12 bit, smooth enough to compress."""
    y, x = np.indices(SHAPE)
    return (1000 + 20 * x + 7 * y + rng.integers(0, 30, SHAPE)).astype(np.uint16)


def rle(samples):
    """PS3.5 Annex G."""
    high, low = (samples >> 8).astype(np.uint8), (samples & 0xFF).astype(np.uint8)
    segments = [bytes(imagecodecs.packbits_encode(plane)) for plane in (high, low)]
    segments = [segment + b"\0" * (len(segment) % 2) for segment in segments]
    offsets = [2, 64, 64 + len(segments[0])]
    return struct.pack("<16I", *offsets, *[0] * 13) + b"".join(segments)


ENCODERS = {
    "uncompressed": (PixelEncoding.ENCAPSULATED_UNCOMPRESSED, lambda a: a.astype("<u2").tobytes()),
    "RLE": (PixelEncoding.RLE, rle),
    "JPEG lossless": (
        PixelEncoding.JPEG,
        lambda a: imagecodecs.jpeg8_encode(a, bitspersample=12, lossless=True),
    ),
    "JPEG lossless, predictor 6": (
        PixelEncoding.JPEG,
        lambda a: imagecodecs.jpeg8_encode(a, bitspersample=16, lossless=True, predictor=6),
    ),
    "JPEG-LS": (PixelEncoding.JPEG_LS, imagecodecs.jpegls_encode),
    "JPEG 2000": (
        PixelEncoding.JPEG_2000,
        lambda a: imagecodecs.jpeg2k_encode(a, codecformat="j2k", reversible=True, level=0),
    ),
    "JPEG 2000 in a JP2 file": (
        PixelEncoding.JPEG_2000,
        lambda a: imagecodecs.jpeg2k_encode(a, codecformat="jp2", reversible=True, level=0),
    ),
    "HTJ2K": (PixelEncoding.JPEG_2000, imagecodecs.htj2k_encode),
}


@pytest.fixture(params=ENCODERS)
def encoded(request, samples):
    """Encoding and bytes of a lossless frame."""
    encoding, encode = ENCODERS[request.param]
    return encoding, bytes(encode(samples))


def test_lossless_frames_come_back_as_they_were(encoded, samples):
    encoding, data = encoded

    frame = decode_frame(data, encoding, SHAPE, 16)

    np.testing.assert_array_equal(frame.samples, samples)


def test_padding_of_a_frame_to_even_length_is_no_harm(encoded, samples):
    encoding, data = encoded

    frame = decode_frame(data + b"\0", encoding, SHAPE, 16)

    np.testing.assert_array_equal(frame.samples, samples)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.9, 0.98])
def test_a_cut_off_frame_is_never_decoded_to_something_else(encoded, share):
    encoding, data = encoded

    with pytest.raises((CodecError, CodestreamError, RuntimeError, ValueError)):
        decode_frame(data[: int(share * len(data))], encoding, SHAPE, 16)


@pytest.mark.parametrize("shape", [(24, 41), (25, 40), (2048, 2048)])
def test_a_frame_of_a_smaller_matrix_is_refused(encoded, shape):
    encoding, data = encoded

    with pytest.raises((CodecError, RuntimeError)):
        decode_frame(data, encoding, shape, 16)


@pytest.mark.parametrize("quality", [80, 98])
@pytest.mark.parametrize("bits", [8, 12])
def test_lossy_jpeg_is_close(samples, bits, quality):
    original = (samples >> 4).astype(np.uint8) if bits == 8 else samples
    data = imagecodecs.jpeg8_encode(original, level=quality, bitspersample=bits)

    frame = decode_frame(data, PixelEncoding.JPEG, SHAPE, bits if bits == 8 else 16)

    assert frame.precision == bits
    assert np.abs(frame.samples.astype(int) - original).max() < (1 << bits) / 20


def test_signed_codestreams_keep_their_sign(samples):
    signed = samples.astype(np.int16) - 2000
    data = imagecodecs.jpeg2k_encode(signed, codecformat="j2k", reversible=True, level=0)

    frame = decode_frame(data, PixelEncoding.JPEG_2000, SHAPE, 16)

    assert jpeg2000_header(data).signed
    np.testing.assert_array_equal(frame.samples, signed)


def test_colour_is_refused(rng):
    colour = rng.integers(0, 255, (*SHAPE, 3), dtype=np.uint8)

    for encoding, data in (
        (PixelEncoding.JPEG, imagecodecs.jpeg8_encode(colour)),
        (PixelEncoding.JPEG_LS, imagecodecs.jpegls_encode(colour)),
        (PixelEncoding.JPEG_2000, imagecodecs.jpeg2k_encode(colour, codecformat="j2k")),
    ):
        with pytest.raises(CodecError, match="x 3"):
            decode_frame(data, encoding, SHAPE, 8)


def test_headers_are_read_before_any_codec(samples):
    for bits in (12, 16):
        data = imagecodecs.jpeg8_encode(samples, bitspersample=bits, lossless=True)
        header = jpeg_header(data)
        assert (header.rows, header.columns, header.precision) == (*SHAPE, bits)
    header = jpeg_header(imagecodecs.jpegls_encode(samples))
    assert (header.rows, header.columns, header.components) == (*SHAPE, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xda\0\2\xff\xd9",
        b"\xff\xd8" + b"\xff" * 200 + b"\xff\xd9",
        b"\xff\xd8\xff\xc3\0\4\1\xff\xd9",
    ],
)
def test_what_is_no_jpeg_is_refused(data):
    with pytest.raises(CodestreamError):
        jpeg_header(data)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\x4f\xff\x51\0\x29", b"\x00\x00\x00\x0cjP  " + bytes(200), b"RIFF" * 20]
)
def test_what_is_no_jpeg_2000_is_refused(data):
    with pytest.raises(CodestreamError):
        jpeg2000_header(data)


@pytest.mark.parametrize(
    "header",
    [(1, 64), (3, 64, 70, 80), (2, 0, 70), (2, 90, 70), (2, 64, 9999)],
    ids=["one segment", "three", "in the header", "backwards", "beyond the end"],
)
def test_an_rle_header_that_cannot_be_is_refused(samples, header):
    data = struct.pack("<16I", *header, *[0] * (16 - len(header))) + rle(samples)[64:]

    with pytest.raises(CodecError):
        decode_frame(data, PixelEncoding.RLE, SHAPE, 16)


def test_an_rle_bomb_is_cut_short():
    segment = b"\x81\0" * 1_000_000  # 128 zeros for every 2 bytes
    data = struct.pack("<16I", 2, 64, 64 + len(segment), *[0] * 13) + segment * 2

    with pytest.raises(RuntimeError):
        decode_frame(data, PixelEncoding.RLE, SHAPE, 16)


def test_mutated_frames_are_decoded_or_refused(encoded, rng):
    """A codec may not notice; it must not fail in any other way than by an exception."""
    encoding, data = encoded
    outcomes = set()
    for _ in range(150):
        mutant = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            mutant[at] = rng.integers(0, 256)
        try:
            assert decode_frame(bytes(mutant), encoding, SHAPE, 16).samples.shape == SHAPE
            outcomes.add("decoded")
        except (CodecError, CodestreamError, RuntimeError, ValueError):
            outcomes.add("refused")

    assert outcomes
