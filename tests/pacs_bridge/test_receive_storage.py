"""Instances over real associations: what is answered, what is kept, and where."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    LegacyConvertedEnhancedCTImageStorage,
    MRImageStorage,
    RLELossless,
    SegmentationStorage,
)
from pynetdicom import AE
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import CTImageStorage, Verification

from inference.reasons import Reason
from pacs_bridge.deliver.responses import keep_responses
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import JobRequest, ResultFile, State
from pacs_bridge.receive.status import Status

SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
    JPEGLSLossless,
    JPEG2000Lossless,
    "1.2.840.10008.1.2.4.201",
]


@pytest.fixture
def listener(make_config, start_listener):
    return start_listener(make_config())


@pytest.fixture
def ledger(listener, make_config) -> Ledger:
    return Ledger.open(make_config().ledger_path)


@pytest.fixture
def data_folder(make_config):
    return make_config().data_folder


def files_in(folder) -> list:
    return sorted(path for path in folder.rglob("*.dcm"))


def associate(port: int, *contexts):
    ae = AE(ae_title="SENDER")
    for abstract_syntax, transfer_syntaxes in contexts or [(Verification, None)]:
        ae.add_requested_context(abstract_syntax, transfer_syntaxes)
    association = ae.associate("127.0.0.1", port, ae_title="PACSBRIDGE")
    if association.is_established:
        keep_responses(association)
    return association


def test_an_echo_is_answered(listener):
    association = associate(listener.port)
    assert association.send_c_echo().Status == Status.SUCCESS
    association.release()


def test_an_instance_is_on_disk_as_it_was_sent(listener, send, make_ct, data_folder, ledger):
    instance = make_ct()
    assert send(listener.port, [instance]) == [Status.SUCCESS]

    (path,) = files_in(data_folder)
    stored = dcmread(path)
    sent = encode(instance, is_implicit_vr=False, is_little_endian=True)
    (source,) = ledger.instances.sources(instance.SeriesInstanceUID, 1)
    assert source.path == path
    assert source.digest == hashlib.sha256(sent).hexdigest()
    assert path.read_bytes()[:128] == bytes(128)
    assert path.read_bytes().endswith(sent)
    assert stored.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert stored.PixelData == instance.PixelData
    assert list((data_folder / "spool" / "landing").iterdir()) == []


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_transfer_syntax_is_taken_without_touching_a_byte(
    listener, send, make_ct, data_folder, syntax
):
    instance = make_ct()
    instance.file_meta.TransferSyntaxUID = syntax
    if syntax not in SYNTAXES[:3]:
        instance.PixelData = encapsulate([b"not decoded here"])
        instance["PixelData"].is_undefined_length = True
    assert send(listener.port, [instance]) == [Status.SUCCESS]

    (path,) = files_in(data_folder)
    stored = dcmread(path)
    assert stored.file_meta.TransferSyntaxUID == syntax
    assert stored.PixelData == instance.PixelData


@pytest.mark.parametrize(
    "sop_class", [EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage]
)
def test_multi_frame_ct_is_taken_and_its_frames_counted(listener, send, make_ct, ledger, sop_class):
    instance = make_ct(SOPClassUID=sop_class, NumberOfFrames=20)
    assert send(listener.port, [instance]) == [Status.SUCCESS]
    assert ledger.view.series(instance.SeriesInstanceUID)[0].instance_count == 1


@pytest.mark.parametrize(
    ("sop_class", "syntax"),
    [
        (SegmentationStorage, ExplicitVRLittleEndian),
        ("1.2.840.10008.5.1.4.1.1.66.7", ExplicitVRLittleEndian),
        (MRImageStorage, ExplicitVRLittleEndian),
        ("1.2.3.4.5", ExplicitVRLittleEndian),
        (CTImageStorage, DeflatedExplicitVRLittleEndian),
        (CTImageStorage, "1.2.840.10008.1.2.8.1"),  # deflated image frames
        (CTImageStorage, "1.2.840.10008.1.2.4.95"),  # JPIP referenced, deflated
    ],
)
def test_what_is_not_accepted_is_refused_in_negotiation(listener, sop_class, syntax):
    association = associate(listener.port, (Verification, None), (sop_class, syntax))
    assert association.is_established
    assert [cx.abstract_syntax for cx in association.accepted_contexts] == [Verification]
    association.release()


@pytest.mark.parametrize(
    ("calling", "called", "source_and_reason"),
    [("SENDER", "SOMEBODY", (1, 7)), ("STRANGER", "PACSBRIDGE", (1, 3))],
)
def test_strangers_and_wrong_numbers_are_rejected_for_good(
    make_config, start_listener, raw_peer, calling, called, source_and_reason
):
    peers = 'peers = [{ ae_title = "SENDER", addresses = ["127.0.0.1"] }]'
    listener = start_listener(make_config(listener=f"{{ port = 0, {peers} }}"))
    peer = raw_peer(listener.port)
    peer.request(calling=calling, called=called)
    assert peer.read_pdu() == (3, bytes((0, 1, *source_and_reason)))


def test_a_known_title_at_an_unknown_address_is_rejected(make_config, start_listener, raw_peer):
    peers = 'peers = [{ ae_title = "SENDER", addresses = ["10.9.8.7"] }]'
    listener = start_listener(make_config(listener=f"{{ port = 0, {peers} }}"))
    peer = raw_peer(listener.port)
    peer.request(calling="SENDER")
    assert peer.read_pdu() == (3, bytes((0, 1, 1, 3)))


def test_the_same_series_again_is_known_and_kept_once(listener, send, make_ct, data_folder, ledger):
    series = [make_ct(number=number) for number in range(1, 6)]
    assert send(listener.port, series) == [Status.SUCCESS] * 5
    assert send(listener.port, series) == [Status.SUCCESS] * 5

    assert len(files_in(data_folder)) == 5
    assert ledger.view.counts() == {"duplicate-instance": 5}


def test_other_bytes_of_the_same_instance_are_answered_as_duplicate_and_quarantined(
    listener, send, make_ct, data_folder, ledger
):
    first, second = make_ct(), make_ct(SeriesDescription="changed")
    assert send(listener.port, [first, second]) == [
        Status.SUCCESS,
        Status.DUPLICATE_SOP_INSTANCE,
    ]

    (aside,) = ledger.instances.set_aside(first.SeriesInstanceUID)
    assert dcmread(aside.path).SeriesDescription == "changed"
    (source,) = ledger.instances.sources(first.SeriesInstanceUID, 1)
    assert dcmread(source.path).SeriesDescription == first.SeriesDescription


def test_another_patient_in_the_same_series_is_quarantined(listener, send, make_ct, ledger):
    ours, theirs = make_ct(number=1), make_ct(number=2, PatientID="PID-2")
    assert send(listener.port, [ours, theirs]) == [Status.SUCCESS, Status.MIXED_IDENTITY]

    (aside,) = ledger.instances.set_aside(ours.SeriesInstanceUID)
    assert aside.reason is Reason.MIXED_IDENTITY


@pytest.mark.parametrize(
    "keyword",
    ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"],
)
def test_nothing_is_made_up_for_an_empty_identifier(
    listener, raw_peer, make_ct, data_folder, keyword
):
    instance = make_ct()
    uid = instance.SOPInstanceUID
    setattr(instance, keyword, "")
    peer = raw_peer(listener.port).associate()
    data_set = encode(instance, False, True)
    assert peer.store_bytes(CTImageStorage, uid, data_set) == Status.MISSING_IDENTITY
    (path,) = files_in(data_folder)
    assert path.parent == data_folder / "quarantine" / "missing-identity"


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID"])
def test_a_data_set_that_is_not_what_was_announced_is_refused(listener, raw_peer, make_ct, keyword):
    instance = make_ct()
    uid = instance.SOPInstanceUID
    setattr(instance, keyword, MRImageStorage if keyword == "SOPClassUID" else "1.2.3")
    peer = raw_peer(listener.port).associate()
    data_set = encode(instance, False, True)
    assert peer.store_bytes(CTImageStorage, uid, data_set) == Status.DATA_SET_DOES_NOT_MATCH


def test_an_instance_of_another_class_than_its_context_is_refused(listener, raw_peer, make_ct):
    peer = raw_peer(listener.port).associate()
    data_set = encode(make_ct(), False, True)
    status = peer.store_bytes(EnhancedCTImageStorage, make_ct().SOPInstanceUID, data_set)
    assert status == Status.SOP_CLASS_NOT_SUPPORTED


def nested(depth: int) -> bytes:
    """Sequences in sequences, of undefined length."""
    opening = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return opening * depth


@pytest.mark.parametrize(
    "data_set",
    [
        pytest.param(b"\x00", id="one byte"),
        pytest.param(b"\xff" * 1000, id="no data set"),
        pytest.param(nested(10), id="nested 10, cut"),
        pytest.param(nested(10_000), id="nested 10,000"),
        pytest.param(b"\x08\x00\x05\x00CS\xff\xff", id="length beyond the end"),
    ],
)
def test_what_cannot_be_parsed_is_refused_and_the_association_lives(listener, raw_peer, data_set):
    peer = raw_peer(listener.port).associate()
    for _ in range(2):
        assert peer.store_bytes(CTImageStorage, "1.2.3", data_set) == Status.CANNOT_UNDERSTAND
    peer.release()


@pytest.mark.parametrize(
    "uid", ["../../x", "/etc/x", "a\\b", "1..2", "C:\\x", "%s", "1.2\n3", "9" * 64 + ".1"]
)
def test_what_is_no_uid_is_refused_and_nothing_is_written_elsewhere(
    listener, raw_peer, make_ct, data_folder, uid
):
    before = set(data_folder.parent.rglob("*"))
    instance = make_ct(SeriesInstanceUID=uid, PatientID="../../" + uid)
    peer = raw_peer(listener.port).associate()
    data_set = encode(instance, False, True)

    status = peer.store_bytes(CTImageStorage, instance.SOPInstanceUID, data_set)

    assert status == Status.MISSING_IDENTITY
    new = {path for path in set(data_folder.parent.rglob("*")) - before if path.is_file()}
    assert {path.parent for path in new if path.suffix == ".dcm"} == {
        data_folder / "quarantine" / "missing-identity"
    }


@pytest.mark.parametrize("uid", ["../../../../tmp/x", "", "1.2.x", "1." * 40])
def test_a_sop_instance_uid_that_is_none_is_refused_and_nothing_is_written(
    listener, raw_peer, data_folder, uid
):
    peer = raw_peer(listener.port).associate()
    assert peer.store_bytes(CTImageStorage, uid, b"anything") == Status.CANNOT_UNDERSTAND
    assert files_in(data_folder) == []


def long_sequence() -> Sequence:
    """More than the head of a data set."""
    items = []
    for number in range(6000):
        item = Dataset()
        item.ReferencedSOPClassUID = CTImageStorage
        item.ReferencedSOPInstanceUID = f"1.2.3.4.5.6.7.8.9.{number}"
        items.append(item)
    return Sequence(items)


def state_of(ledger: Ledger, series: str) -> list[State]:
    return [view.state for view in ledger.view.series(series)]


def test_what_cannot_be_told_of_any_series_holds_up_no_series_of_another_sender(
    listener, raw_peer, send, make_ct, ledger, wait_for
):
    peer = raw_peer(listener.port).associate()
    mine, theirs = make_ct(series=1), make_ct(series=2)
    assert peer.store(mine) == 0x0000
    nameless = make_ct(series=3)
    del nameless.PatientID, nameless.StudyInstanceUID, nameless.SeriesInstanceUID
    assert peer.store(nameless) == Status.CANNOT_UNDERSTAND

    send(listener.port, [theirs])
    wait_for(lambda: state_of(ledger, theirs.SeriesInstanceUID) == [State.READY])
    assert state_of(ledger, mine.SeriesInstanceUID) == [State.RECEIVING]
    peer.release()
    wait_for(lambda: state_of(ledger, mine.SeriesInstanceUID) == [State.INCOMPLETE])


def test_a_series_lacks_an_instance_that_came_without_the_uid_of_its_series(
    listener, send, make_ct, ledger, wait_for
):
    one, nameless = make_ct(number=1), make_ct(number=2, SeriesInstanceUID="")
    assert send(listener.port, [one, nameless]) == [0x0000, Status.MISSING_IDENTITY]
    wait_for(lambda: state_of(ledger, one.SeriesInstanceUID) == [State.INCOMPLETE])


def test_a_refused_instance_holds_up_its_series_only_until_another_sender_brings_it(
    listener, raw_peer, send, make_ct, ledger, wait_for
):
    peer = raw_peer(listener.port).associate()
    one, other = make_ct(number=1), make_ct(number=2)
    mismatched = encode(make_ct(number=3), is_implicit_vr=False, is_little_endian=True)
    refusal = peer.store_bytes(other.SOPClassUID, other.SOPInstanceUID, mismatched)
    assert refusal == Status.DATA_SET_DOES_NOT_MATCH

    send(listener.port, [one])
    wait_for(lambda: state_of(ledger, one.SeriesInstanceUID) == [State.INCOMPLETE])
    send(listener.port, [other])
    wait_for(lambda: state_of(ledger, one.SeriesInstanceUID) == [State.READY])
    peer.release()


def test_a_series_with_an_odd_slice_thickness_is_taken_and_goes_on(
    listener, raw_peer, make_ct, ledger, wait_for
):
    instance = make_ct(SliceThickness="1.25")
    data_set = encode(instance, False, True).replace(b"1.25", b"1,25")
    peer = raw_peer(listener.port).associate()

    assert peer.store_bytes(CTImageStorage, instance.SOPInstanceUID, data_set) == Status.SUCCESS

    peer.release()
    wait_for(lambda: state_of(ledger, instance.SeriesInstanceUID) == [State.READY])


@pytest.mark.parametrize("is_header_long", [False, True])
def test_what_is_refused_for_its_header_is_owed_to_the_series_that_it_names(
    listener, raw_peer, make_ct, ledger, wait_for, is_header_long
):
    one, odd = make_ct(number=1), make_ct(number=2, NumberOfFrames="1234")
    if is_header_long:
        odd.ReferencedImageSequence = long_sequence()
    data_set = encode(odd, False, True).replace(b"1234", b"1.0x")
    peer = raw_peer(listener.port).associate()

    refusal = peer.store_bytes(CTImageStorage, odd.SOPInstanceUID, data_set)

    assert refusal == Status.CANNOT_UNDERSTAND
    (row,) = ledger.view.jobs()
    assert (row.series_instance_uid, row.owed_count) == (odd.SeriesInstanceUID, 1)
    assert peer.store(one) == Status.SUCCESS
    peer.release()
    wait_for(lambda: state_of(ledger, one.SeriesInstanceUID) == [State.INCOMPLETE])


def test_a_header_longer_than_the_head_is_read_from_the_file(listener, send, make_ct, ledger):
    instance = make_ct()
    instance.ReferencedImageSequence = long_sequence()  # (0008,1140): before the identifiers
    assert send(listener.port, [instance]) == [Status.SUCCESS]
    assert len(ledger.instances.sources(instance.SeriesInstanceUID, 1)) == 1


def test_our_own_result_is_counted_and_dropped_where_the_site_wants_that(
    make_config, start_listener, raw_peer
):
    config = make_config(
        listener='{ port = 0, own_results = "discard",'
        ' peers = [{ ae_title = "*", addresses = ["127.0.0.1"] }] }'
    )
    listener = start_listener(config)
    ledger = Ledger.open(config.ledger_path)
    ledger.jobs.submit(JobRequest("1.2", 1, "r", "m", ("a",)))
    result = ResultFile(0, "binary", "x", SegmentationStorage, "2.25.5", "2.25.6", "1", "0", 1)
    ledger.jobs.complete(ledger.jobs.claim("w", 60), [result], [])
    peer = raw_peer(listener.port).associate(
        contexts=[(SegmentationStorage, ExplicitVRLittleEndian)]
    )
    assert peer.store_bytes(SegmentationStorage, "2.25.5", b"anything") == Status.SUCCESS
    theirs = peer.store_bytes(SegmentationStorage, "2.25.9", b"anything")
    assert theirs == Status.SOP_CLASS_NOT_SUPPORTED

    assert ledger.view.counts() == {"own-result": 1}
    assert files_in(config.data_folder) == []


def test_below_the_watermark_associations_are_rejected_for_the_time_being(
    make_config, start_listener, raw_peer, ram_folder
):
    free_gib = shutil.disk_usage(ram_folder).free / 2**30
    disk = f"{{ accept_above_free_gib = {free_gib * 2}, reserve_free_gib = 0.0 }}"
    listener = start_listener(make_config(disk=disk))
    peer = raw_peer(listener.port)
    peer.request()
    assert peer.read_pdu() == (3, bytes((0, 2, 3, 1)))


def test_a_second_listener_on_the_same_port_or_folder_is_refused(
    make_config, start_listener, ram_folder
):
    from pacs_bridge.errors import PermanentError

    config = make_config()
    listener = start_listener(config)
    with pytest.raises(PermanentError, match="another listener") as caught:
        start_listener(config)
    assert caught.value.reason is Reason.CANNOT_LISTEN
    peers = 'peers = [{ ae_title = "*", addresses = ["127.0.0.1"] }]'
    (ram_folder / "second").mkdir()
    taken = make_config(ram_folder / "second", listener=f"{{ port = {listener.port}, {peers} }}")
    with pytest.raises(PermanentError, match=f"127.0.0.1 port {listener.port}"):
        start_listener(taken)


def test_the_listener_imports_nothing_that_computes():
    code = (
        "import pacs_bridge.receive.service, pacs_bridge.ledger.ledger, sys;"
        "print(sorted({'torch', 'monai', 'numpy'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in told.stdout
    assert "monai" not in told.stdout
