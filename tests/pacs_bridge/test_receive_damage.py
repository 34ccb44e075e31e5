"""A ledger that is damaged: senders are told that it is for the time being."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from pacs_bridge.receive.status import Status

#: The answer to an association request: rejected, transient, temporary congestion (PS3.8 9.3.4).
CONGESTED = (3, bytes((0, 2, 3, 1)))
#: The collector keeps off the ledger: a connection that has just read remembers sound pages.
COLLECTOR = "{ check_interval_s = 60.0 }"


def damage(ledger: Path) -> None:
    """Leave nothing of the file that can be believed, under those who have it open."""
    with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
        # what they remember of the file counts no more, and it is all in the file
        connection.execute("UPDATE machine SET listener_epoch = listener_epoch")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with ledger.open("r+b") as file:
        file.write(b"\xff" * ledger.stat().st_size)


def test_after_an_instance_that_a_damaged_ledger_cannot_take_nobody_is_asked_to_send_more(
    make_config, start_listener, raw_peer, make_ct, clock
):
    config = make_config(collector=COLLECTOR)
    listener = start_listener(config, clock=clock)
    damage(config.ledger_path)

    peer = raw_peer(listener.port).associate()
    assert peer.store(make_ct()) == Status.PROCESSING_FAILURE
    assert peer.store(make_ct(number=2)) == Status.PROCESSING_FAILURE
    peer.release()

    other = raw_peer(listener.port)
    other.request()
    assert other.read_pdu() == CONGESTED
    clock.pass_s(61)  # somebody has to try
    assert raw_peer(listener.port).associate().store(make_ct()) == Status.PROCESSING_FAILURE
    again = raw_peer(listener.port)
    again.request()
    assert again.read_pdu() == CONGESTED


def test_a_damaged_ledger_that_is_asked_who_waits_rejects_for_the_time_being(
    make_config, start_listener, raw_peer
):
    disk = "{ accept_above_free_gib = 0.0, reserve_free_gib = 0.0, max_waiting_series = 1 }"
    config = make_config(collector=COLLECTOR, disk=disk)
    listener = start_listener(config)
    damage(config.ledger_path)

    peer = raw_peer(listener.port)
    peer.request()

    assert peer.read_pdu() == CONGESTED


def test_a_result_that_comes_back_to_a_damaged_ledger_ends_no_association(
    make_config, start_listener, raw_peer
):
    peers = 'peers = [{ ae_title = "*", addresses = ["127.0.0.1"] }]'
    section = f'{{ port = 0, own_results = "discard", {peers} }}'
    config = make_config(collector=COLLECTOR, listener=section)
    listener = start_listener(config)
    damage(config.ledger_path)
    context = (SegmentationStorage, ExplicitVRLittleEndian)
    peer = raw_peer(listener.port).associate(contexts=[context])

    answer = peer.store_bytes(SegmentationStorage, "2.25.5", b"anything")

    assert answer == Status.PROCESSING_FAILURE
    peer.release()
