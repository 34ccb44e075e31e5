"""What workers left on disk that died: none of it stays when the job is over."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.reasons import Reason
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import JobClaim, JobRequest, ResultFile, State
from pacs_bridge.report import REPORT_NAME
from pacs_bridge.worker_job import folder_of

LEASE_S = 60.0
RESULT = ResultFile(
    0, "binary", "results/a.dcm", "1.2", "2.25.1", "2.25.2", "1.2.840.10008.1.2.1", "0" * 64, 1
)


@pytest.fixture
def ledger(ram_folder, clock) -> Ledger:
    return Ledger.open(ram_folder / "ledger.sqlite", clock)


def begun(ledger: Ledger, series: str = "1.2.3") -> JobClaim:
    """A job that a worker has, and files of it on disk; made, if it is not there."""
    ledger.jobs.submit(JobRequest(series, 1, "route", "model", ()))
    claim = ledger.jobs.claim("w", LEASE_S)
    assert claim is not None
    for folder in folders(ledger, claim):
        folder.mkdir(parents=True)
        (folder / "half").write_bytes(b"written")
    return claim


def folders(ledger: Ledger, claim: JobClaim) -> list[Path]:
    root = ledger.database.path.parent
    return [root / each / folder_of(claim.job_id, claim.fence) for each in ("scratch", "results")]


def files(ledger: Ledger) -> list[str]:
    root = ledger.database.path.parent
    found = [path for each in ("scratch", "results") for path in (root / each).rglob("*")]
    return sorted(path.name for path in found if path.is_file() or not any(path.iterdir()))


def test_nothing_stays_of_a_job_whose_workers_died_three_times(ledger, clock):
    for _ in range(3):
        claim = begun(ledger)
        assert ledger.leftovers.delete() == 0
        clock.pass_s(LEASE_S + 1)
    assert ledger.jobs.claim("w", LEASE_S) is None
    assert ledger.view.job(claim.job_id).state is State.DEAD
    assert len(files(ledger)) == 6

    assert ledger.leftovers.delete() == 1
    assert files(ledger) == []
    assert ledger.leftovers.delete() == 0


def test_the_report_that_says_why_there_is_no_result_stays(ledger, clock):
    begun(ledger)
    clock.pass_s(LEASE_S + 1)
    claim = begun(ledger)
    (folders(ledger, claim)[1] / REPORT_NAME).write_text("{}")
    ledger.jobs.skip(claim, Reason.TOO_FEW_SLICES, "")
    ledger.leftovers.delete()

    assert files(ledger) == ["half", REPORT_NAME]


def test_what_is_at_work_or_has_a_result_is_left_alone(ledger):
    with_result = begun(ledger, "1.1")
    begun(ledger, "1.2")
    ledger.jobs.complete(with_result, [RESULT], [])

    assert ledger.leftovers.delete() == 0
    assert len(files(ledger)) == 4


def test_a_job_that_is_tried_again_keeps_what_its_new_worker_writes(ledger, monkeypatch):
    ledger.jobs.park(begun(ledger), Reason.MODEL_ERROR, "")
    iterdir = Path.iterdir

    def tried_again_meanwhile(folder: Path):
        if ledger.view.job(1).state is State.DEAD:
            assert ledger.steering.retry_job(1)
            begun(ledger)
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", tried_again_meanwhile)
    ledger.leftovers.delete()
    monkeypatch.undo()

    assert len(files(ledger)) == 4


def test_folders_of_leases_of_a_queue_elsewhere_go_too(ledger):
    claim = begun(ledger)
    elsewhere = folders(ledger, claim)[1].with_name("00001099511627777")
    elsewhere.mkdir()
    ledger.jobs.park(claim, Reason.INTERNAL_ERROR, "its worker died")
    ledger.leftovers.delete()

    assert files(ledger) == []
