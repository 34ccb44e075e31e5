"""Planning series that a remote archive has, by what it says of them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from dicom_seg.read.examination import SeriesRules
from dicom_seg.read.kind import CT_SOP_CLASSES, MULTI_FRAME_CT_SOP_CLASSES
from inference.reasons import Reason
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.sources.remote_archive import FoundSeries, RemoteArchive, SeriesQuery

_ROWS_AT_ONCE: Final = 500
#: Series UIDs that an archive is asked for in one question.
_UIDS_AT_ONCE: Final = 50


#: Series that an archive has named in one answer; with '' as study: in two studies.
_MET: Final = """
CREATE TEMP TABLE IF NOT EXISTS met (series TEXT PRIMARY KEY, study_instance_uid TEXT NOT NULL)
"""


def plan_found(
    plan: PlanFile, source: str, found: Iterable[FoundSeries], rules: SeriesRules
) -> int:
    """Plan what an archive found; gives how many series. Raises as the archive does."""
    count = 0
    series = iter(found)
    with plan.write() as connection:
        connection.execute(_MET)
        connection.execute("DELETE FROM temp.met")
    while rows := list(islice(series, _ROWS_AT_ONCE)):
        count += len(rows)
        with plan.write() as connection:
            connection.executemany(
                "INSERT INTO series (series, study_instance_uid, source, instances, planes, bytes,"
                " contents, plan_reason, plan_detail, findings)"
                " VALUES (?, ?, ?, ?, 0, 0, ?, ?, ?, '[]') ON CONFLICT (series) DO UPDATE SET"
                " study_instance_uid = excluded.study_instance_uid, source = excluded.source,"
                " instances = excluded.instances, contents = excluded.contents,"
                " plan_reason = excluded.plan_reason, plan_detail = excluded.plan_detail"
                " WHERE source = excluded.source OR plan_reason = 'source-missing'",
                [_row(each, source, rules, _is_mixed(connection, each)) for each in rows],
            )
    return count


def plan_listed(
    plan: PlanFile,
    source: str,
    archive: RemoteArchive,
    listed: dict[str, str],
    query: SeriesQuery,
    rules: SeriesRules,
) -> int:
    """Plan the series of a list; those that the archive does not have are coded.

    Parameters
    ----------
    listed
        Study Instance UIDs, which may be empty, by Series Instance UID.
    query
        What must hold beside.
    """
    unmet = dict(listed)
    count = 0
    for some in _chunks(list(listed)):
        found = archive.find(replace(query, series_instance_uids=some))
        seen = []
        for each in found:
            if each.series_instance_uid in listed:
                seen.append(each)
                unmet.pop(each.series_instance_uid, None)
        count += plan_found(plan, source, seen, rules)
    missing(plan, source, unmet)
    return count + len(unmet)


def missing(plan: PlanFile, source: str, series: dict[str, str]) -> None:
    """Plan series that are nowhere: they are accounted for, and do not run."""
    with plan.write() as connection:
        connection.executemany(
            "INSERT OR IGNORE INTO series (series, study_instance_uid, source, instances, planes,"
            " bytes, contents, plan_reason, plan_detail, findings)"
            " VALUES (?, ?, ?, 0, 0, 0, '', ?, 'listed, and nowhere to be found', '[]')",
            [(uid, study, source, Reason.SOURCE_MISSING) for uid, study in series.items()],
        )


def _chunks(uids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(uids), _UIDS_AT_ONCE):
        yield tuple(uids[start : start + _UIDS_AT_ONCE])


def _is_mixed(connection: sqlite3.Connection, found: FoundSeries) -> bool:
    """Whether the archive has named the series with another study in the same answer."""
    uids = (found.series_instance_uid, found.study_instance_uid)
    connection.execute("INSERT OR IGNORE INTO temp.met VALUES (?, ?)", uids)
    row = connection.execute(
        "SELECT 1 FROM temp.met WHERE series = ? AND study_instance_uid <> ?", uids
    ).fetchone()
    if row is not None:  # so it stays, whatever comes
        connection.execute("UPDATE temp.met SET study_instance_uid = '' WHERE series = ?", uids[:1])
    return row is not None


def _row(found: FoundSeries, source: str, rules: SeriesRules, is_mixed: bool) -> tuple[object, ...]:
    reason, detail = _refusal(found, rules)
    if is_mixed:
        reason, detail = Reason.MIXED_IDENTITY, "two studies of the archive have it"
    count = found.instance_count or 0
    facts = [found.study_instance_uid, found.series_instance_uid, count]
    return (
        found.series_instance_uid,
        found.study_instance_uid,
        source,
        count,
        hashlib.sha256(json.dumps(facts).encode()).hexdigest(),
        reason,
        detail,
    )


def _refusal(found: FoundSeries, rules: SeriesRules) -> tuple[Reason | None, str]:
    """Why a series is not fetched. What an archive does not say is looked at when it runs."""
    if found.modality not in ("CT", ""):
        return Reason.NOT_CT, f"Modality {found.modality[:16]!r}"
    classes = set(found.sop_classes)
    if classes and not classes.intersection(CT_SOP_CLASSES):
        return Reason.NOT_CT, "no SOP class of CT"
    count = found.instance_count
    may_be_multi_frame = not classes or classes.intersection(MULTI_FRAME_CT_SOP_CLASSES)
    if count is not None and count < rules.min_slices and not may_be_multi_frame:
        return Reason.TOO_FEW_SLICES, f"{count} instances, fewer than {rules.min_slices}"
    return None, ""
