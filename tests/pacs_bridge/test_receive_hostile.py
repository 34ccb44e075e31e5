"""Peers that break the protocol, stall, flood or lie: a genuine peer is served all the same."""

from __future__ import annotations

import itertools
import os
import random
import resource
import struct
import time

import pytest
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import Verification

from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import State
from pacs_bridge.receive.status import Status

ABORT = 7
REJECT = 3
RELEASE_RQ = struct.pack(">BxI", 5, 4) + bytes(4)
PEERS = 'peers = [{ ae_title = "*", addresses = ["127.0.0.0/8"] }]'


@pytest.fixture
def listener(make_config, start_listener):
    return start_listener(make_config())


@pytest.fixture
def echo(raw_peer):
    """A genuine C-ECHO; True if it is answered with success."""

    def run(port: int, source: str = "127.0.0.1") -> bool:
        peer = raw_peer(port, source=source).associate(
            contexts=[(Verification, ImplicitVRLittleEndian)]
        )
        command = b"".join(
            struct.pack("<HHI", 0, number, len(value)) + value
            for number, value in [
                (0x0002, Verification.encode() + b"\0"),
                (0x0100, struct.pack("<H", 0x30)),
                (0x0110, struct.pack("<H", 1)),
                (0x0800, struct.pack("<H", 0x0101)),
            ]
        )
        peer.send(peer.data(command, 0x03))
        is_answered = peer.status() == Status.SUCCESS
        peer.send(RELEASE_RQ)
        assert peer.read_pdu()[0] == 6
        return is_answered

    return run


def test_an_honest_raw_peer_is_served(listener, echo):
    assert echo(listener.port)


@pytest.mark.parametrize("beginning", [b"", b"\x01", b"\x01\x00\x00\x00\x10\x00half of it"])
def test_a_crowd_that_stalls_keeps_nobody_out(listener, raw_peer, echo, beginning):
    crowd = [raw_peer(listener.port) for _ in range(100)]
    for peer in crowd:
        peer.send(beginning)

    assert echo(listener.port)
    assert echo(listener.port, source="127.0.0.2")


def test_a_crowd_takes_few_threads(listener, raw_peer, echo):
    import threading

    before = threading.active_count()
    for _ in range(200):
        raw_peer(listener.port)
    assert echo(listener.port)

    deadline = time.monotonic() + 20
    while threading.active_count() > before + 17 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before + 17


def test_a_stalled_association_ends_by_itself(make_config, start_listener, raw_peer):
    listener = start_listener(
        make_config(listener=f"{{ port = 0, pdu_timeout_s = 0.2, idle_timeout_s = 0.3, {PEERS} }}")
    )
    inside_a_pdu = raw_peer(listener.port).associate()
    inside_a_pdu.send(struct.pack(">BxI", 4, 100) + b"not a hundred bytes")
    between_messages = raw_peer(listener.port).associate()

    assert inside_a_pdu.read_pdu()[0] == ABORT
    assert between_messages.read_pdu()[0] == ABORT


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("is_associated", [False, True])
def test_a_length_bomb_is_refused_before_it_is_read(listener, raw_peer, echo, is_associated):
    peer = raw_peer(listener.port)
    if is_associated:
        peer.associate()
    before = resident_bytes()
    bomb = struct.pack(">BxI", 4 if is_associated else 1, 0xFFFFFFF0)
    try:
        peer.send(bomb)
        for _ in range(256):
            peer.send(bytes(1 << 20))
    except OSError:
        pass  # it was cut off, as it should be

    assert resident_bytes() - before < 8 * 2**20
    assert echo(listener.port)


def test_an_instance_without_end_is_cut_off_and_leaves_nothing(
    make_config, start_listener, raw_peer, echo, make_ct
):
    config = make_config(listener=f"{{ port = 0, max_instance_mib = 1, {PEERS} }}")
    listener = start_listener(config)
    peer = raw_peer(listener.port).associate()
    peer.send(peer.store_command("1.2.3"))
    for _ in range(80):  # a little more than 1 MiB
        peer.send(peer.data(bytes(16_000), 0))

    assert peer.read_pdu()[0] == ABORT
    assert echo(listener.port)
    assert list((config.spool_folder / "landing").iterdir()) == []


def test_a_command_without_end_is_cut_off(listener, raw_peer):
    peer = raw_peer(listener.port).associate()
    for _ in range(20):
        peer.send(peer.data(bytes(1000), 1))
    assert peer.read_pdu()[0] == ABORT


def test_too_many_instances_end_the_association_and_the_series_is_held(
    make_config, start_listener, raw_peer, make_ct, wait_for
):
    config = make_config(listener=f"{{ port = 0, max_association_instances = 2, {PEERS} }}")
    listener = start_listener(config)
    peer = raw_peer(listener.port).associate()
    for number in (1, 2, 3):
        instance = make_ct(number=number)
        peer.send(peer.store_command(instance.SOPInstanceUID))
        peer.send(peer.data(encode(instance, False, True), 2))
        if number < 3:
            assert peer.status() == Status.SUCCESS
    assert peer.read_pdu()[0] == ABORT
    peer.close()

    view = Ledger.open(config.ledger_path).view
    wait_for(lambda: [one.state for one in view.jobs()] == [State.INCOMPLETE])


def protocol_breaks() -> dict[str, bytes]:
    pdv = struct.pack(">IBB", 6, 1, 0)
    return {
        "an unknown PDU": b"\x09\x00\x00\x00\x00\x04abcd",
        "a second request": struct.pack(">BxI", 1, 4) + bytes(4),
        "an acceptance": struct.pack(">BxI", 2, 4) + bytes(4),
        "data before a command": struct.pack(">BxI", 4, 10) + pdv + b"data",
        "a PDV longer than its PDU": struct.pack(">BxI", 4, 10) + b"\0\0\xff\xff\x01\x03data",
        "a PDV of no length": struct.pack(">BxI", 4, 6) + struct.pack(">IBB", 0, 1, 3),
        "a PDV that is cut": struct.pack(">BxI", 4, 3) + b"\0\0\0",
        "a context nobody accepted": struct.pack(">BxI", 4, 10)
        + struct.pack(">IBB", 6, 99, 3)
        + b"data",
        "a command that is none": struct.pack(">BxI", 4, 10)
        + struct.pack(">IBB", 6, 1, 3)
        + b"data",
        "a command without fields": struct.pack(">BxI", 4, 6) + struct.pack(">IBB", 2, 1, 3),
    }


@pytest.mark.parametrize("name", protocol_breaks())
def test_a_break_of_the_protocol_ends_that_association_alone(listener, raw_peer, echo, name):
    honest = raw_peer(listener.port).associate()
    peer = raw_peer(listener.port).associate()
    peer.send(protocol_breaks()[name])
    assert peer.read_pdu()[0] == ABORT

    honest.send(RELEASE_RQ)
    assert honest.read_pdu()[0] == 6
    assert echo(listener.port)


def test_a_release_inside_a_message_is_an_abort(listener, raw_peer):
    peer = raw_peer(listener.port).associate()
    peer.send(peer.store_command("1.2.3"))
    peer.send(peer.data(b"half", 0))
    peer.send(RELEASE_RQ)
    assert peer.read_pdu()[0] == ABORT


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00" * 20])
def test_other_protocols_are_turned_away(listener, raw_peer, echo, noise):
    peer = raw_peer(listener.port)
    peer.send(noise)
    assert peer.read_pdu()[0] in (0, ABORT)
    assert echo(listener.port)


def test_beyond_the_limit_associations_are_rejected_for_the_time_being(
    make_config, start_listener, raw_peer
):
    limits = "max_associations = 3, max_associations_per_address = 2"
    listener = start_listener(make_config(listener=f"{{ port = 0, {limits}, {PEERS} }}"))
    first, _second = (raw_peer(listener.port).associate() for _ in range(2))

    same_address = raw_peer(listener.port)
    same_address.request()
    assert same_address.read_pdu() == (REJECT, bytes((0, 2, 3, 2)))
    raw_peer(listener.port, source="127.0.0.2").associate()
    one_too_many = raw_peer(listener.port, source="127.0.0.3")
    one_too_many.request()
    assert one_too_many.read_pdu() == (REJECT, bytes((0, 2, 3, 2)))

    first.send(RELEASE_RQ)
    assert first.read_pdu()[0] == 6
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        again = raw_peer(listener.port)
        again.request()
        if again.read_pdu()[0] == 2:
            return
    pytest.fail("a place that was given up was not given to another")


def test_more_than_1023_open_files_do_not_matter(listener, raw_peer, echo, make_ct):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("this machine does not allow so many open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    descriptors = [os.dup(0) for _ in range(1100)]
    try:
        assert echo(listener.port)
        peer = raw_peer(listener.port).associate()
        instance = make_ct()
        peer.send(peer.store_command(instance.SOPInstanceUID))
        peer.send(peer.data(encode(instance, False, True), 2))
        assert peer.status() == Status.SUCCESS
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_fragments_may_be_cut_anywhere(listener, raw_peer, make_ct, make_config):
    instance = make_ct()
    data_set = encode(instance, False, True)
    peer = raw_peer(listener.port).associate()
    command = peer.store_command(instance.SOPInstanceUID)[12:]
    stream = peer.data(command[:5], 1) + peer.data(command[5:], 3)
    cuts = [0, 0, 1, 2, 130, 131, len(data_set)]
    for start, end in itertools.pairwise(cuts):
        stream += peer.data(data_set[start:end], 0)
    stream += peer.data(b"", 2)
    for start in range(0, len(stream), 37):
        peer.send(stream[start : start + 37])

    assert peer.status() == Status.SUCCESS


def test_several_fragments_in_one_pdu_are_taken_in_turn(listener, raw_peer, make_ct):
    instance = make_ct()
    peer = raw_peer(listener.port).associate()
    parts = [
        peer.store_command(instance.SOPInstanceUID)[6:],
        peer.data(encode(instance, False, True), 2)[6:],
    ]
    body = b"".join(parts)
    peer.send(struct.pack(">BxI", 4, len(body)) + body)
    assert peer.status() == Status.SUCCESS


def test_other_commands_are_answered_and_a_cancel_is_not(listener, raw_peer, make_ct):
    peer = raw_peer(listener.port).associate()
    store = peer.store_command("1.2.3")
    find = store.replace(
        struct.pack("<HHIH", 0, 0x0100, 2, 0x0001), struct.pack("<HHIH", 0, 0x0100, 2, 0x0020)
    )
    peer.send(find + peer.data(b"identifier", 2))
    assert peer.status() == Status.UNRECOGNIZED_OPERATION
    cancel = find.replace(
        struct.pack("<HHIH", 0, 0x0100, 2, 0x0020), struct.pack("<HHIH", 0, 0x0100, 2, 0x0FFF)
    ).replace(struct.pack("<HHIH", 0, 0x0800, 2, 1), struct.pack("<HHIH", 0, 0x0800, 2, 0x0101))
    peer.send(cancel)
    peer.send(find + peer.data(b"identifier", 2))
    assert peer.status() == Status.UNRECOGNIZED_OPERATION


def test_mutated_streams_leave_the_listener_alive(listener, raw_peer, echo, make_ct):
    instance = make_ct()
    probe = raw_peer(listener.port)
    sent: list[bytes] = []
    probe.send = sent.append  # type: ignore[method-assign]
    probe.request()
    sent.append(probe.store_command(instance.SOPInstanceUID))
    sent.append(probe.data(encode(instance, False, True), 2))
    stream = b"".join(sent)
    rng = random.Random(20261121)

    for _ in range(300):
        mutant = bytearray(stream)
        for _ in range(rng.randint(1, 8)):
            mutant[rng.randrange(len(mutant))] = rng.randrange(256)
        peer = raw_peer(listener.port)
        try:
            peer.send(bytes(mutant[: rng.randint(1, len(mutant))]))
        except OSError:
            continue
        finally:
            peer.close()

    assert echo(listener.port)


def test_a_request_from_an_unknown_address_is_rejected_unread(
    make_config, start_listener, raw_peer
):
    peers = '[{ ae_title = "*", addresses = ["127.0.0.2"] }]'
    listener = start_listener(make_config(listener=f"{{ port = 0, peers = {peers} }}"))
    nonsense = b"\x01\x00" + (200).to_bytes(4, "big") + b"\xff" * 200

    stranger = raw_peer(listener.port, source="127.0.0.1")
    stranger.send(nonsense)
    kind, body = stranger.read_pdu()
    assert (kind, tuple(body[1:4])) == (3, (1, 1, 3))

    known = raw_peer(listener.port, source="127.0.0.2")
    known.send(nonsense)
    assert known.read_pdu()[0] == 7
