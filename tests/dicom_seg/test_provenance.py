"""UIDs that follow from what a result was made of."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian

from dicom_seg.provenance import (
    IMPLEMENTATION_CLASS_UID,
    ResultIdentity,
    SourceInstance,
    derived_uid,
    instance_digest,
    source_instances,
)

IDENTITY = ResultIdentity(
    series_instance_uid="1.2.3",
    sources=tuple(SourceInstance(f"1.2.3.{n}", f"{n:064x}") for n in range(20)),
    model_digest="ab" * 32,
    parameters=(("overlap", "0.25"), ("spacing_mm", "3.0")),
    revision=1,
    stack="",
    kind="binary",
)


def test_the_same_work_has_the_same_uids_whatever_the_order_of_delivery() -> None:
    shuffled = list(IDENTITY.sources)
    random.Random(7).shuffle(shuffled)
    other = replace(
        IDENTITY, sources=tuple(shuffled), parameters=tuple(reversed(IDENTITY.parameters))
    )

    assert other.uid("instance") == IDENTITY.uid("instance")
    assert other.uid("series") == IDENTITY.uid("series")


@pytest.mark.parametrize(
    "change",
    [
        {"series_instance_uid": "1.2.4"},
        {"sources": IDENTITY.sources[:-1]},
        {"sources": (replace(IDENTITY.sources[0], digest="f" * 64), *IDENTITY.sources[1:])},
        {"model_digest": "cd" * 32},
        {"parameters": (("overlap", "0.5"), ("spacing_mm", "3.0"))},
        {"revision": 2},
        {"stack": "AcquisitionNumber=2"},
        {"kind": "labelmap"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_work_has_other_uids(change: dict[str, object]) -> None:
    assert replace(IDENTITY, **change).uid("instance") != IDENTITY.uid("instance")


def test_a_tracking_uid_outlives_kind_model_and_revision_but_not_the_series() -> None:
    again = replace(IDENTITY, kind="labelmap", revision=3, model_digest="cd" * 32)
    elsewhere = replace(IDENTITY, series_instance_uid="1.2.4")

    assert again.tracking_uid("liver") == IDENTITY.tracking_uid("liver")
    assert elsewhere.tracking_uid("liver") != IDENTITY.tracking_uid("liver")
    assert IDENTITY.tracking_uid("spleen") != IDENTITY.tracking_uid("liver")


def test_uids_are_valid_and_their_derivation_never_changes() -> None:
    uids = {IDENTITY.uid(role) for role in ("series", "instance", "dimension organization")}

    assert len(uids) == 3
    for uid in (*uids, IMPLEMENTATION_CLASS_UID):
        assert len(uid) <= 64
        assert pydicom.uid.UID(uid).is_valid
    # 128 bit of SHA-256 of '["a", "b"]', as anyone can compute it
    expected = int(hashlib.sha256(b'["a", "b"]').hexdigest()[:32], 16)
    assert derived_uid("a", "b") == f"2.25.{expected}"


def test_parts_of_a_uid_do_not_run_into_each_other() -> None:
    assert derived_uid("ab", "c") != derived_uid("a", "bc")


def test_the_digest_of_an_instance_does_not_depend_on_who_stored_it(tmp_path: Path) -> None:
    ds = pydicom.Dataset()
    ds.PatientName = "Doe^Jane"
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    ds.save_as(tmp_path / "a", enforce_file_format=True)
    ds.file_meta.SourceApplicationEntityTitle = "SOMEBODY_ELSE"
    ds.file_meta.PrivateInformationCreatorUID = "1.2"
    ds.file_meta.PrivateInformation = b"\1\2" * 40
    ds.save_as(tmp_path / "b", enforce_file_format=True)
    body = b"\x10\x00\x10\x00\x08\x00\x00\x00Doe^Jane"
    (tmp_path / "bare").write_bytes(body)

    digests = {instance_digest(tmp_path / name) for name in ("a", "b", "bare")}
    assert digests == {hashlib.sha256(body).hexdigest()}
    assert source_instances([("1.2.3", tmp_path / "a")]) == (
        SourceInstance("1.2.3", digests.pop()),
    )
