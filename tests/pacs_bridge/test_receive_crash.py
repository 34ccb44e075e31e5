"""Killed, full or told to stop: what was acknowledged is there, what was not leaves nothing."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from pynetdicom.dsutils import encode

from pacs_bridge.ledger.audit import audit
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import State
from pacs_bridge.receive.committer import Point
from pacs_bridge.receive.landing import LandingFile
from pacs_bridge.receive.status import Status

RELEASE_RQ = b"\x05\x00\x00\x00\x00\x04" + bytes(4)
LISTENER = """
    import itertools, os, signal, sys
    from pathlib import Path
    from pacs_bridge.config.load import load_config
    from pacs_bridge.identity_hash import IdentityHash
    from pacs_bridge.library_settings import apply_library_settings
    from pacs_bridge.log import JsonLog
    from pacs_bridge.receive.listener import Listener

    apply_library_settings()
    config = load_config(Path(sys.argv[1]))
    passed = itertools.count(1)

    def reached(point):
        if point == sys.argv[2] and next(passed) == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

    listener = Listener(config, JsonLog.open(None, IdentityHash(b"test")), reached=reached)
    listener.start()
    print(listener.port, flush=True)
    sys.stdin.read()
    listener.stop()
"""


class ListenerProcess:
    """A listener in a process of its own, that may be killed at a point."""

    def __init__(self, config_path: Path, point: str = "", nth: int = 0, limit: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(LISTENER), config_path, point, str(nth)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=lambda: limit and resource.setrlimit(
                resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)
            ),
        )  # fmt: skip
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def stop(self) -> int:
        """End it as a service is ended, if it still runs; gives its exit status."""
        self.process.communicate()
        return self.process.returncode


@pytest.fixture
def run_listener(make_config, tmp_path):
    config = make_config(tmp_path)  # on a disk: what is tested is that it gets there
    started: list[ListenerProcess] = []

    def run(*args: object, **options: object) -> ListenerProcess:
        started.append(ListenerProcess(tmp_path / "bridge.toml", *args, **options))
        return started[-1]

    run.config = config
    yield run
    for one in started:
        one.process.kill()
        with one.process:  # closes the pipes
            pass


@pytest.fixture
def send_all(raw_peer):
    """Send until the listener dies; gives the statuses that came."""

    def run(port: int, instances) -> list[int]:
        peer = raw_peer(port).associate()
        statuses = []
        for instance in instances:
            status = peer.store(instance)
            if status < 0:
                return statuses
            statuses.append(status)
        peer.release()
        return statuses

    return run


def digest(instance) -> str:
    return hashlib.sha256(encode(instance, False, True)).hexdigest()


@pytest.mark.parametrize("nth", [1, 4])
@pytest.mark.parametrize("point", list(Point))
def test_a_kill_loses_nothing_that_was_acknowledged(
    run_listener, send_all, make_ct, point, nth, wait_for
):
    config = run_listener.config
    series = [make_ct(number=number) for number in range(1, 7)]
    killed = run_listener(point, nth)
    acknowledged = send_all(killed.port, series)
    assert killed.process.wait(timeout=30) == -signal.SIGKILL
    assert acknowledged == [Status.SUCCESS] * (nth - 1)

    second = run_listener()
    ledger = Ledger.open(config.ledger_path)
    kept = {one.sop_instance_uid: one for one in ledger.instances.sources(series_of(series), 1)}
    for instance in series[: len(acknowledged)]:
        assert kept[instance.SOPInstanceUID].digest == digest(instance)
        assert kept[instance.SOPInstanceUID].path.is_file()
    assert sorted(config.spool_folder.rglob("*.dcm")) == sorted(one.path for one in kept.values())
    assert list((config.spool_folder / "landing").iterdir()) == []
    if kept:  # the killed association was never released
        (revision,) = ledger.series.open_revisions()
        assert revision.is_interrupted

    assert send_all(second.port, series) == [Status.SUCCESS] * 6
    wait_for(lambda: ledger.view.series(series_of(series))[0].state is State.READY)
    assert second.stop() == 0
    stored = ledger.instances.sources(series_of(series), 1)
    assert {one.digest for one in stored} == {digest(instance) for instance in series}
    assert sorted(config.spool_folder.rglob("*.dcm")) == sorted(one.path for one in stored)
    assert list(audit(ledger.database, config.spool_folder, config.quarantine_folder)) == []


def series_of(instances) -> str:
    return str(instances[0].SeriesInstanceUID)


def test_a_full_disk_is_answered_and_passes(run_listener, send_all, make_ct, wait_for):
    """A file may not grow beyond 1 MiB: the disk is full for the large ones of a series."""
    listener = run_listener(limit=1 << 20)
    small = make_ct(number=1)
    large = make_ct(number=2, PixelData=bytes(2 << 20))

    assert send_all(listener.port, [small, large, small]) == [
        Status.SUCCESS,
        Status.OUT_OF_RESOURCES,
        Status.SUCCESS,
    ]
    ledger = Ledger.open(run_listener.config.ledger_path)
    wait_for(lambda: ledger.view.series(series_of([small]))[0].state is State.INCOMPLETE)

    no_limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(listener.process.pid, resource.RLIMIT_FSIZE, no_limit)
    assert send_all(listener.port, [small, large]) == [Status.SUCCESS] * 2
    wait_for(lambda: ledger.view.series(series_of([small]))[0].state is State.READY)
    assert list((run_listener.config.spool_folder / "landing").iterdir()) == []


def test_below_the_reserve_an_instance_is_refused_and_its_series_is_held(
    make_config, start_listener, send, make_ct, monkeypatch, wait_for
):
    config = make_config(disk="{ accept_above_free_gib = 1.0, reserve_free_gib = 1.0 }")
    listener = start_listener(config)
    free = iter([2 << 30, 2 << 30, 0, 2 << 30, 2 << 30])  # admission, instance, instance, ...
    monkeypatch.setattr(listener._spool, "free_bytes", lambda: next(free))
    series = [make_ct(number=1), make_ct(number=2)]

    assert send(listener.port, series) == [Status.SUCCESS, Status.OUT_OF_RESOURCES]

    ledger = Ledger.open(config.ledger_path)
    wait_for(lambda: ledger.view.series(series_of(series))[0].state is State.INCOMPLETE)


def test_an_instance_that_was_refused_alone_holds_the_series_that_comes_after_it(
    make_config, start_listener, send, make_ct, monkeypatch, wait_for
):
    """One association an image, and the first of them finds no space."""
    config = make_config()
    listener = start_listener(config)
    series = [make_ct(number=number) for number in (1, 2, 3)]
    monkeypatch.setattr(listener._depot.landing, "open", no_space)
    assert send(listener.port, series[:1]) == [Status.OUT_OF_RESOURCES]
    monkeypatch.undo()
    for instance in series[1:]:
        assert send(listener.port, [instance]) == [Status.SUCCESS]

    ledger = Ledger.open(config.ledger_path)
    wait_for(lambda: ledger.view.series(series_of(series))[0].state is State.INCOMPLETE)
    assert ledger.view.series(series_of(series))[0].owed_count == 1

    assert send(listener.port, series[:1]) == [Status.SUCCESS]
    wait_for(lambda: ledger.view.series(series_of(series))[0].state is State.READY)


def test_a_refusal_is_known_before_it_is_answered(
    make_config, start_listener, raw_peer, make_ct, monkeypatch
):
    config = make_config()
    listener = start_listener(config)
    monkeypatch.setattr(listener._depot.landing, "open", no_space)
    peer = raw_peer(listener.port).associate()
    assert peer.store(make_ct()) == Status.OUT_OF_RESOURCES

    (owed,) = Ledger.open(config.ledger_path).refusals.owed(series_of([make_ct()]))
    assert (owed.sop_instance_uid, owed.answer) == (make_ct().SOPInstanceUID, "A700")


def test_a_disk_that_becomes_read_only_is_answered_and_the_association_ends(
    make_config, start_listener, raw_peer, make_ct, monkeypatch, wait_for
):
    config = make_config()
    listener = start_listener(config)
    peer = raw_peer(listener.port).associate()
    assert peer.store(make_ct(number=1)) == Status.SUCCESS
    second = make_ct(number=2)
    peer.send(peer.store_command(second.SOPInstanceUID))
    wait_for(lambda: list(listener._spool.landing_folder.iterdir()) != [])
    monkeypatch.setattr(LandingFile, "_write", read_only)
    monkeypatch.setattr("pacs_bridge.receive.landing.Path.unlink", read_only)
    peer.send(peer.data(encode(second, False, True), 2))
    assert peer.status() == Status.OUT_OF_RESOURCES
    peer.release()

    ledger = Ledger.open(config.ledger_path)
    wait_for(lambda: ledger.view.series(series_of([second]))[0].state is State.INCOMPLETE)


def test_an_association_ends_in_the_ledger_whatever_fails_at_its_end(
    make_config, start_listener, raw_peer, make_ct, monkeypatch, wait_for
):
    config = make_config()
    listener = start_listener(config)
    peer = raw_peer(listener.port).associate()
    assert peer.store(make_ct(number=1)) == Status.SUCCESS
    peer.send(peer.store_command(make_ct(number=2).SOPInstanceUID))
    wait_for(lambda: list(listener._spool.landing_folder.iterdir()) != [])
    monkeypatch.setattr(LandingFile, "discard", broken)
    peer.abort()

    ledger = Ledger.open(config.ledger_path)
    wait_for(lambda: ledger.view.series(series_of([make_ct()]))[0].state is State.INCOMPLETE)


def read_only(*_arguments: object, **_options: object) -> None:
    raise OSError(errno.EROFS, "read-only")


def broken(*_arguments: object) -> None:
    raise RuntimeError("broken")


def no_space(*_names: str) -> LandingFile:
    raise OSError(errno.ENOSPC, "no space")


def test_an_abort_inside_the_first_instance_of_an_association_holds_its_series(
    make_config, start_listener, raw_peer, send, make_ct, wait_for
):
    """Another association sends the rest of the series and is released."""
    config = make_config(collector="{ quiet_period_s = 1.0, check_interval_s = 0.02 }")
    listener = start_listener(config)
    first, second = make_ct(number=1), make_ct(number=2)
    data_set = encode(first, False, True)
    peer = raw_peer(listener.port).associate()
    peer.send(peer.store_command(first.SOPInstanceUID))
    peer.send(peer.data(data_set[:-10], 0))
    peer.abort()
    assert send(listener.port, [second]) == [Status.SUCCESS]

    ledger = Ledger.open(config.ledger_path)
    wait_for(lambda: ledger.view.series(series_of([first]))[0].state is State.INCOMPLETE)
    assert send(listener.port, [first]) == [Status.SUCCESS]
    wait_for(lambda: ledger.view.series(series_of([first]))[0].state is State.READY)


def test_a_ledger_that_cannot_be_written_is_answered_and_passes(
    make_config, start_listener, send, make_ct, monkeypatch, wait_for
):
    monkeypatch.setattr("pacs_bridge.receive.listener._LEDGER_WAIT_S", 0.1)
    config = make_config(collector="{ quiet_period_s = 1.0, check_interval_s = 0.02 }")
    listener = start_listener(config)
    assert send(listener.port, [make_ct(number=1)]) == [Status.SUCCESS]
    holder = sqlite3.connect(config.ledger_path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    release = threading.Timer(1.0, holder.execute, ["ROLLBACK"])
    release.start()

    ledger = Ledger.open(config.ledger_path)
    assert send(listener.port, [make_ct(number=2)]) == [Status.OUT_OF_RESOURCES]
    release.join()
    wait_for(lambda: ledger.view.series(series_of([make_ct()]))[0].state is State.INCOMPLETE)

    assert send(listener.port, [make_ct(number=1), make_ct(number=2)]) == [Status.SUCCESS] * 2
    wait_for(lambda: ledger.view.series(series_of([make_ct()]))[0].state is State.READY)
    holder.close()
    assert list((config.spool_folder / "landing").iterdir()) == []


def is_refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_told_to_stop_it_answers_what_is_under_way_and_takes_no_more(
    make_config, start_listener, raw_peer, make_ct, wait_for
):
    config = make_config()
    listener = start_listener(config)
    port = listener.port
    instance = make_ct()
    data_set = encode(instance, False, True)
    peer = raw_peer(listener.port).associate()
    peer.send(peer.store_command(instance.SOPInstanceUID))
    peer.send(peer.data(data_set[:100], 0))
    idle = raw_peer(listener.port).associate()

    stopping = threading.Thread(target=listener.stop, args=(0.3,))
    stopping.start()
    wait_for(lambda: is_refused(port))
    time.sleep(0.6)  # longer than the time-out: it is in the middle of an instance
    peer.send(peer.data(data_set[100:], 2))

    assert peer.status() == Status.SUCCESS
    assert peer.read_pdu()[0] == 7
    assert idle.read_pdu()[0] == 7
    peer.close()
    idle.close()
    stopping.join()
    ledger = Ledger.open(config.ledger_path)
    assert len(ledger.instances.sources(series_of([instance]), 1)) == 1


def test_an_association_that_ends_in_time_is_not_aborted_by_a_stop(
    make_config, start_listener, raw_peer, make_ct
):
    listener = start_listener(make_config())
    peer = raw_peer(listener.port).associate()
    stopping = threading.Thread(target=listener.stop, args=(30.0,))
    stopping.start()
    instance = make_ct()
    peer.send(peer.store_command(instance.SOPInstanceUID))
    peer.send(peer.data(encode(instance, False, True), 2))
    assert peer.status() == Status.SUCCESS
    peer.send(RELEASE_RQ)
    assert peer.read_pdu()[0] == 6
    peer.close()
    stopping.join()


def test_sigterm_ends_the_process_of_a_service(run_listener, tmp_path):
    code = (
        "import sys; from pathlib import Path;"
        "from pacs_bridge.config.load import load_config;"
        "from pacs_bridge.receive.service import run_listener;"
        "run_listener(load_config(Path(sys.argv[1])), lambda port: print(port, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "bridge.toml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert int(process.stdout.readline()) > 0
    os.kill(process.pid, signal.SIGTERM)
    _, log = process.communicate(timeout=30)

    assert process.returncode == 0
    assert [line for line in log.splitlines() if "listener-closed" in line]
