"""What the ledger knows, as JSON: UIDs and no other identifier of anybody."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING

from pacs_bridge.ledger.views import DeliveryView, JobView, LedgerView
from pacs_bridge.queue import SPOOL, Priority

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Json = Mapping[str, object]


class CallFault(StrEnum):
    """Why a call was not answered as it wished; a series has a ``Reason`` of its own."""

    TOKEN = "token"  # noqa: S105 - a code
    UNKNOWN_ROUTE = "unknown-route"
    METHOD = "method"
    BAD_REQUEST = "bad-request"
    TOO_LARGE = "too-large-request"
    BUSY = "busy"
    OTHER_PATIENT = "other-patient"
    UNKNOWN_SERIES = "unknown-series"
    NOTHING_TO_RETRY = "nothing-to-retry"
    NOTHING_TO_REPEAT = "nothing-to-repeat"
    NOT_HELD = "not-held"
    SOURCES_DELETED = "sources-deleted"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A status and what is said with it."""

    status: HTTPStatus
    body: Json


def refusal(status: HTTPStatus, reason: StrEnum, detail: str) -> Answer:
    """Why not."""
    return Answer(status, {"reason": reason, "detail": detail})


def series_facts(view: LedgerView, rows: Sequence[JobView]) -> Json:
    """A series: where its latest revision stands, and every revision with job and deliveries.

    What an archive run made of it is told, and is not where it stands if it was received too.
    """
    latest = (_received(rows) or rows)[-1]
    return {
        "series_instance_uid": latest.series_instance_uid,
        "revision": latest.revision,
        "state": latest.state,
        "reason": latest.reason,
        "detail": latest.detail,
        "instance_count": latest.instance_count,
        "owed_count": latest.owed_count,
        "revisions": [revision_facts(view, row) for row in rows],
    }


def steered_jobs(rows: Sequence[JobView]) -> tuple[int, ...]:
    """The jobs of a series that an operator means, those of what was received first.

    These are of its latest revision; of archive runs, which make results beside it, each route's
    latest.
    """
    received = _received(rows)
    latest = [row for row in received if row.revision == received[-1].revision]
    archives = {row.route: row for row in rows if _is_of_archive(row)}
    return tuple(row.job_id for row in (*latest, *archives.values()) if row.job_id is not None)


def _received(rows: Sequence[JobView]) -> Sequence[JobView]:
    return [row for row in rows if not _is_of_archive(row)]


def _is_of_archive(row: JobView) -> bool:
    return row.priority is Priority.ARCHIVE and row.source != SPOOL


def revision_facts(view: LedgerView, row: JobView) -> Json:
    """One revision, its job and where the results went."""
    deliveries = () if row.job_id is None else view.deliveries(row.job_id)
    return {**row_facts(row), "deliveries": [_delivery_facts(each) for each in deliveries]}


def row_facts(row: JobView) -> Json:
    """One line of a job list."""
    return _plain(row)


def _delivery_facts(delivery: DeliveryView) -> Json:
    return _plain(delivery)


def _plain(view: DataclassInstance) -> dict[str, object]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in dataclasses.asdict(view).items()
    }
