"""A worker elsewhere: tickets, and a data folder that may be away."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queue_bench import request_of, result_of

from dicom_seg.segmentation import SegKind
from inference.reasons import Reason
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.ledger.instances import SetAside
from pacs_bridge.ledger.sources import SpooledInstance
from pacs_bridge.postgres.fence import first_fence
from pacs_bridge.postgres.payload import checked_below, parsed_json
from pacs_bridge.postgres.place import handed_over_jobs
from pacs_bridge.postgres.ticket import (
    Ticket,
    TicketBook,
    TicketSources,
    identity,
    made_identity,
)
from pacs_bridge.queue import JobClaim

DIGEST = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"  # of b"foo"


class Nowhere:
    def fetch(self, claim, _scratch, _check):
        raise PermanentError(Reason.UNKNOWN_SOURCE, claim.predecessors)


def claim_of(fence: int, **changes: object) -> JobClaim:
    return JobClaim(7, fence, request_of(**changes), 1, "w", datetime(2026, 11, 22, tzinfo=UTC), ())


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The data folder of a bridge that has handed job 7 over."""
    folder = tmp_path / "site"
    (folder / "spool").mkdir(parents=True)
    made_identity(folder)
    (folder / "spool" / "a.dcm").write_bytes(b"headfoo")
    claim = replace(claim_of(3), predecessors=(replace(result_of(), path="results/old.dcm"),))
    TicketBook(folder).write(
        claim,
        [SpooledInstance("1.2.3.4", folder / "spool" / "a.dcm", DIGEST, 4, 7)],
        [SetAside("1.2.3.5", folder / "quarantine" / "b.dcm", Reason.IDENTITY_DIFFERS)],
    )
    return folder


@pytest.fixture
def mounted(tmp_path: Path, site: Path) -> Path:
    """The same folder, as another machine sees it."""
    path = tmp_path / "elsewhere"
    path.symlink_to(site)
    return path


def sources_of(folder: Path) -> TicketSources:
    return TicketSources(TicketBook(folder), Nowhere(), lambda: identity(folder))


def fetched(folder: Path, claim: JobClaim):
    return sources_of(folder).fetch(claim, folder / "scratch", lambda: None)


def test_a_ticket_names_files_where_they_are_mounted_here(mounted):
    source = fetched(mounted, claim_of(first_fence(3) + 5))

    assert source.paths == (mounted / "spool" / "a.dcm",)
    assert source.digests[0].digest == DIGEST
    assert [each.sop_instance_uid for each in source.set_aside] == ["1.2.3.5"]
    assert source.predecessors[0].kind is SegKind.BINARY


@pytest.mark.parametrize(
    "damage", [lambda path: path.unlink(), lambda p: p.write_bytes(b"headbar")]
)
def test_a_file_that_is_gone_or_changed_ends_the_job(mounted, damage):
    damage(mounted / "spool" / "a.dcm")

    with pytest.raises(PermanentError) as error:
        fetched(mounted, claim_of(first_fence(3)))
    assert error.value.reason is Reason.SOURCE_MISSING


def test_nothing_is_missing_for_good_while_the_folder_is_not_mounted(site, mounted):
    mounted.unlink()
    mounted.mkdir()  # the mount point without its mount

    with pytest.raises(TransientError) as error:
        fetched(mounted, claim_of(first_fence(3)))
    assert error.value.reason is Reason.QUEUE_UNAVAILABLE
    shutil.rmtree(mounted)
    mounted.symlink_to(site)
    assert fetched(mounted, claim_of(first_fence(3))).paths


def test_a_job_whose_files_lie_in_an_archive_has_a_ticket_with_what_it_is_to_replace(site):
    with pytest.raises(PermanentError) as error:
        fetched(site, claim_of(first_fence(9), source="pacs"))
    assert error.value.reason is Reason.SOURCE_MISSING

    with pytest.raises(PermanentError) as error:
        fetched(site, claim_of(first_fence(3), source="pacs", revision=2))
    assert error.value.detail[0].path == "results/old.dcm"


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row | {"code": "x"},
        lambda row: row | {"job": 8},
        lambda row: row | {"instances": [row["instances"][0] | {"path": "../secret"}]},
        lambda row: row | {"instances": [row["instances"][0] | {"path": "/etc/passwd"}]},
        lambda row: row | {"instances": [row["instances"][0] | {"size_bytes": -1}]},
        lambda row: [row],
    ],
)
def test_a_ticket_that_others_wrote_ends_the_job(site, change):
    (path,) = (site / "tickets").iterdir()
    path.write_text(json.dumps(change(json.loads(path.read_text()))))

    with pytest.raises(PermanentError) as error:
        fetched(site, claim_of(first_fence(3)))
    assert error.value.reason is Reason.BAD_PAYLOAD


@given(st.binary())
def test_whatever_a_ticket_holds_it_is_parsed_or_refused(data):
    with pytest.raises(PermanentError) as error:
        parsed_json(Ticket, data)
    assert error.value.reason is Reason.BAD_PAYLOAD


@given(st.text())
def test_a_path_that_is_let_through_leads_below(path):
    try:
        checked_below(path)
    except ValueError:
        return
    root = Path("/srv/data")
    assert (root / path).resolve().is_relative_to(root)


def test_tickets_of_jobs_that_are_over_are_deleted(site):
    book = TicketBook(site)
    book.write(replace(claim_of(4), job_id=8), (), ())
    book.keep_only({8})
    assert [path.name for path in (site / "tickets").iterdir()] == ["00000008-4.json"]
    book.remove(8)
    assert not list((site / "tickets").iterdir())


def test_the_identity_of_a_bridge_stays(tmp_path):
    assert made_identity(tmp_path) == made_identity(tmp_path) == identity(tmp_path)


def test_a_worker_opens_before_folder_and_database_are_there(make_config, tmp_path):
    place = handed_over_jobs(make_config(), "postgresql://127.0.0.1:1/none", "default")

    with pytest.raises(TransientError):
        place.queue.claim("w", 60.0)
    made_identity(make_config().data_folder.parent)
    place.close()
