"""A ledger is opened on one machine alone; what a boot, a container and a move mean to it."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest

from inference.reasons import Reason
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.ledger.home import LedgerHome
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.machine import Machine
from pacs_bridge.queue import JobRequest, LeaseLostError, State

BRIDGE = Machine("bridge", "id of the bridge", "boot 1")
WORKER = Machine("gpu1", "id of gpu1", "boot 7")
CONTAINER = Machine("4f1c0a", "", "boot 1")


@pytest.fixture
def home(ram_folder):
    """Of the ledger in the folder: on a disk of this machine, or on one of a network."""

    def make(machine: Machine, disk: str = "", moved_here: bool = False) -> LedgerHome:
        path = ram_folder / "ledger.sqlite"
        return LedgerHome(path, machine, lambda _: disk, moved_here, wait_s=0.0)

    return make


@pytest.fixture
def opened(ram_folder, clock, home):
    """Open the ledger on a machine."""
    ledgers = []

    def run(machine: Machine, disk: str = "", moved_here: bool = False) -> Ledger:
        clock.boot = machine.boot_id
        made = Ledger.open(
            ram_folder / "ledger.sqlite", clock, home=home(machine, disk, moved_here)
        )
        ledgers.append(made)
        return made

    yield run
    for each in ledgers:
        each.close()


def refused(call, *arguments, **options) -> str:
    with pytest.raises(PermanentError) as caught:
        call(*arguments, **options)
    assert caught.value.reason is Reason.LEDGER_ELSEWHERE
    return caught.value.detail


def claimed(ledger: Ledger):
    ledger.jobs.submit(JobRequest("1.2.3", 1, "r", "m", ("a",)))
    return ledger.jobs.claim("w", 60.0)


@pytest.mark.parametrize("disk", ["", "nfs4"])
@pytest.mark.parametrize("is_running", [True, False])
def test_another_machine_of_a_share_takes_no_lease_of_the_bridge(opened, disk, is_running):
    ledger = opened(BRIDGE, disk)
    claim = claimed(ledger)
    if not is_running:
        ledger.close()

    assert "nfs4" in refused(opened, WORKER, "nfs4")

    ledger = ledger if is_running else opened(BRIDGE, disk)
    ledger.jobs.heartbeat(claim, 60.0)
    assert ledger.view.job(claim.job_id).state is State.CLAIMED


def test_a_refused_machine_has_not_touched_the_ledger(opened, ram_folder):
    opened(BRIDGE, "nfs4").close()
    before = {path.name: path.read_bytes() for path in ram_folder.iterdir()}

    refused(opened, WORKER, "nfs4")

    assert {path.name: path.read_bytes() for path in ram_folder.iterdir()} == before


@pytest.mark.parametrize("disk", ["", "nfs4"])
def test_the_same_machine_ends_its_leases_after_a_boot(opened, disk):
    ledger = opened(BRIDGE, disk)
    claim = claimed(ledger)
    ledger.close()

    again = opened(replace(BRIDGE, boot_id="boot 2"), disk)

    assert again.view.job(claim.job_id).state is State.READY
    with pytest.raises(LeaseLostError):
        again.jobs.heartbeat(claim, 60.0)


@pytest.mark.parametrize("disk", ["", "nfs4"])
def test_processes_and_containers_of_one_boot_share_the_ledger(opened, disk):
    ledger = opened(BRIDGE, disk)
    claim = claimed(ledger)

    other = opened(CONTAINER, disk)

    assert other.view.job(claim.job_id).state is State.CLAIMED
    other.close()
    opened(replace(CONTAINER, host="another name"), disk).jobs.heartbeat(claim, 60.0)


def test_a_container_that_is_made_anew_after_a_boot_has_its_ledger_on_a_local_disk(opened):
    ledger = opened(CONTAINER)
    claim = claimed(ledger)
    ledger.close()

    again = opened(Machine("77aa01", "", "boot 2"))

    assert again.view.job(claim.job_id).state is State.READY


def test_a_disk_that_was_put_into_another_machine_is_taken_once_nobody_has_it(opened):
    """Two machines that have one disk, which is not told from a local one."""
    ledger = opened(BRIDGE)
    assert "in use on bridge" in refused(opened, WORKER)
    ledger.close()
    claimed(opened(WORKER))


def test_an_administrator_can_move_a_data_folder_unless_it_is_in_use(opened):
    ledger = opened(BRIDGE, "nfs4")
    assert "in use on bridge" in refused(opened, WORKER, "nfs4", moved_here=True)
    ledger.close()

    opened(WORKER, "nfs4", moved_here=True).close()

    opened(WORKER, "nfs4").close()
    assert "gpu1" in refused(opened, BRIDGE, "nfs4")


def test_on_a_network_disk_a_ledger_of_which_no_machine_is_known_is_nobodys(opened, ram_folder):
    opened(BRIDGE, "nfs4").close()
    (ram_folder / "ledger.machine").write_text('{"host": 7')  # as a crash may leave it

    assert "nothing says" in refused(opened, BRIDGE, "nfs4")

    opened(BRIDGE, "nfs4", moved_here=True).close()
    (ram_folder / "ledger.machine").unlink()
    opened(WORKER).close()  # a local disk has no other machine


def test_who_looks_is_told_the_same_and_changes_nothing(opened, home, ram_folder):
    assert (home(BRIDGE).owner(), home(BRIDGE).is_in_use()) == (None, False)
    assert not list(ram_folder.iterdir())
    ledger = opened(BRIDGE, "nfs4")
    before = (ram_folder / "ledger.machine").stat().st_mtime_ns

    assert home(WORKER, "nfs4").refusal() == refused(opened, WORKER, "nfs4")
    assert home(WORKER).refusal() == refused(opened, WORKER)
    assert (home(CONTAINER).refusal(), home(BRIDGE).owner()) == ("", BRIDGE)
    assert home(CONTAINER).is_in_use()
    ledger.close()
    assert not home(CONTAINER).is_in_use()
    assert home(WORKER).refusal() == ""
    assert (ram_folder / "ledger.machine").stat().st_mtime_ns == before


def test_a_file_of_another_user_is_said_to_be_one(home, ram_folder, monkeypatch):
    home(BRIDGE).enter()
    real = os.open

    def denied(path, *rest):
        if str(path).endswith("ledger.machine"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *rest)

    monkeypatch.setattr(os, "open", denied)
    for call in (home(BRIDGE).enter, home(BRIDGE).is_in_use):
        with pytest.raises(PermanentError, match=f"user id {os.geteuid()}") as caught:
            call()
        assert caught.value.reason is Reason.DATA_FOLDER_DENIED


def test_a_disk_without_room_or_locks_is_a_fault_that_passes(home, ram_folder, monkeypatch):
    (ram_folder / "ledger.machine").symlink_to("/dev/full")
    with pytest.raises(TransientError) as caught:
        home(BRIDGE).enter()
    assert caught.value.reason in (Reason.DISK_FULL, Reason.LEDGER_UNAVAILABLE)


def test_a_disk_that_was_full_leaves_the_ledger_to_its_machine(opened, ram_folder, monkeypatch):
    opened(BRIDGE, "nfs4", moved_here=True).close()
    again = replace(BRIDGE, boot_id="boot 2")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(TransientError) as caught:
            opened(again, "nfs4")
    assert caught.value.reason is Reason.DISK_FULL

    opened(again, "nfs4")


def test_the_machine_takes_as_much_room_whatever_its_name_is(home, ram_folder):
    sizes = []
    for host in ("a", "b" * 64, "c"):
        entered = home(replace(BRIDGE, host=host, boot_id=host))
        entered.enter()
        entered.leave()
        sizes.append((ram_folder / "ledger.machine").stat().st_size)
        assert home(BRIDGE).owner().host == host

    assert len(set(sizes)) == 1


def test_what_root_makes_beside_a_ledger_is_the_users_whose_folder_it_is(home, ram_folder):
    if os.geteuid() == 0:
        os.chown(ram_folder, 12345, 23456)

    home(BRIDGE).enter()

    made, folder = (ram_folder / "ledger.machine").stat(), ram_folder.stat()
    assert (made.st_uid, made.st_gid) == (folder.st_uid, folder.st_gid)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_who_looks_takes_nothing_away_from_the_service(home, ram_folder):
    machine, ledger = ram_folder / "ledger.machine", ram_folder / "ledger.sqlite"
    os.chown(ram_folder, 0, 23456)  # as volumes of groups are
    ledger.touch()
    os.chown(ledger, 12345, 23456)

    def owner_after_a_look() -> tuple[int, int]:
        looks = home(BRIDGE)
        looks.enter()
        looks.leave()
        return machine.stat().st_uid, machine.stat().st_gid

    assert owner_after_a_look() == (12345, 23456)  # as SQLite's own files beside the ledger
    os.chown(machine, 12346, 23456)
    assert owner_after_a_look() == (12346, 23456)
