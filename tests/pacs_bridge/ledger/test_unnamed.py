"""Files that nothing in the ledger names: counted, and a fault when their time is over."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from inference.reasons import Reason
from pacs_bridge.ledger.audit import audit
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.ledger.unnamed import UnnamedFiles
from pacs_bridge.queue import DISPATCHER, JobClaim, JobRequest, ResultFile
from pacs_bridge.report import REPORT_NAME
from pacs_bridge.worker_job import folder_of

LEASE_S = 60.0
DAY_S = 24 * 3600.0


@pytest.fixture
def ledger(ram_folder, clock):
    made = Ledger.open(ram_folder / "ledger.sqlite", clock)
    yield made
    made.close()


def begun(ledger: Ledger, worker: str = "w") -> JobClaim:
    """A job that a worker has, the same one each time, and files of this lease."""
    ledger.jobs.submit(JobRequest("1.2.3", 1, "route", "model", ()))
    claim = ledger.jobs.claim(worker, LEASE_S)
    assert claim is not None
    for place in ("scratch", "results"):
        write(ledger, place / folder_of(claim.job_id, claim.fence) / "half")
    return claim


def write(ledger: Ledger, path: Path) -> Path:
    """A file of seven bytes in the data folder."""
    whole = ledger.database.path.parent / path
    whole.parent.mkdir(parents=True, exist_ok=True)
    whole.write_bytes(b"written")
    return whole


def found(ledger: Ledger, after_s: float = 0.0) -> dict[str, tuple[int, int, bool]]:
    root = ledger.database.path.parent
    places = (root / "spool", root / "quarantine")
    files = UnnamedFiles(ledger.database, places, lambda: time.time() + after_s)
    return {each.path: (each.files, each.size_bytes, each.is_overdue) for each in files.all()}


def test_what_is_at_work_is_nobodys_leftover(ledger):
    begun(ledger)
    assert found(ledger, DAY_S + 1) == {}


def test_all_leases_of_a_job_elsewhere_are_at_work_as_far_as_is_known_here(ledger):
    claim = begun(ledger, DISPATCHER)
    write(ledger, "results" / folder_of(claim.job_id, 1 << 40) / "half")
    write(ledger, Path("tickets", f"{claim.job_id:08d}-1.json"))
    assert found(ledger, DAY_S + 1) == {}


def test_what_a_dead_worker_left_has_its_time_while_its_job_goes_on(ledger, clock):
    first = begun(ledger)
    clock.pass_s(LEASE_S + 1)
    begun(ledger)
    left = {
        f"{place}/{folder_of(first.job_id, first.fence)}": (1, 7, False)
        for place in ("scratch", "results")
    }
    assert found(ledger, 100 * DAY_S) == left


def test_what_is_left_of_a_job_that_is_over_is_overdue_after_a_day(ledger):
    claim = begun(ledger)
    ledger.jobs.park(claim, Reason.MODEL_ERROR, "")
    place = f"scratch/{folder_of(claim.job_id, claim.fence)}"

    assert found(ledger)[place] == (1, 7, False)
    assert found(ledger, DAY_S + 1)[place] == (1, 7, True)


def test_a_report_that_says_why_there_is_no_result_is_no_leftover(ledger):
    claim = begun(ledger)
    write(ledger, "results" / folder_of(claim.job_id, claim.fence) / REPORT_NAME)
    ledger.jobs.skip(claim, Reason.TOO_FEW_SLICES, "")

    assert list(found(ledger)) == [f"scratch/{folder_of(claim.job_id, claim.fence)}"]


def test_what_lies_beside_a_result_is_named_with_it(ledger):
    claim = begun(ledger)
    path = f"results/{folder_of(claim.job_id, claim.fence)}/a.dcm"
    result = ResultFile(0, "binary", path, "1.2", "2.25.1", "2.25.2", "1.2", "0" * 64, 1)
    ledger.jobs.complete(claim, [result], [])

    assert list(found(ledger, DAY_S)) == [f"scratch/{folder_of(claim.job_id, claim.fence)}"]


@pytest.mark.parametrize(
    "path", ["results/00000007/0001/half", "tickets/00000007-1.json", "scratch/other/0001/half"]
)
def test_what_is_of_no_job_is_overdue_after_a_day(ledger, path):
    write(ledger, Path(path))
    assert list(found(ledger).values()) == [(1, 7, False)]
    assert list(found(ledger, DAY_S + 1).values()) == [(1, 7, True)]


@pytest.mark.parametrize(("age_s", "faults"), [(0, 0), (61, 1)])
def test_the_audit_tells_leftovers_from_faults(ledger, age_s, faults):
    stray = write(ledger, Path("spool/00/stray.dcm"))
    os.utime(stray, (time.time() - age_s,) * 2)
    root = ledger.database.path.parent
    noted: list[object] = []
    said = list(audit(ledger.database, root / "spool", root / "quarantine", noted.append))

    assert [each.invariant for each in said] == ["I4"] * faults
    assert len(noted) == 1 - faults
