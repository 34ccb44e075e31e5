"""A later revision in the place of the earlier ones: when it begins, and when it has a result.

What was made of a complete series is not thrown away for a late instance: the later revision may
be held as incomplete, skipped, or fail. Until that is known nothing new is begun with an earlier
one: its job waits (see ``IS_JOB_OVERTAKEN``), what is at work goes on and its result waits (see
``IS_OVERTAKEN``). Only a result takes the place of what came before.
"""

from __future__ import annotations

import sqlite3

from pacs_bridge.ledger.history import Change, note
from pacs_bridge.queue import DeliveryState, State


def _is_archive(job: str) -> str:
    """Of an archive run: it makes its results beside what is received, never in its place."""
    return f"({job}.priority = 2 AND {job}.source <> 'spool')"


def of_one_line(one: str, other: str) -> str:
    """Whether two jobs of a series make results for the same use.

    Two plans may have one series UID in two studies, of two patients: of what is received the
    listener sees to it that there is one. A job that names no study is of none of the others.
    """
    return (
        f"({one}.route = {other}.route AND {_is_archive(one)} = {_is_archive(other)}"
        f" AND (NOT {_is_archive(one)} OR {one}.study_instance_uid = {other}.study_instance_uid))"
    )


def _is_undecided(job: str) -> str:
    """Of a later revision ``n``: whether it may yet have a result in the place of a job's."""
    return f"""
(NOT {_is_archive(job)} AND (n.state IN ('receiving', 'quiet')
 OR EXISTS (SELECT 1 FROM jobs m WHERE m.series_instance_uid = n.series_instance_uid
               AND m.revision = n.revision AND {of_one_line("m", job)}
               AND m.state IN ('ready', 'retry', 'claimed', 'segmented', 'encoded'))))
"""  # noqa: S608 - constants


#: Of a row of jobs: whether a later revision is on its way to a result.
IS_JOB_OVERTAKEN = f"""
EXISTS (SELECT 1 FROM revisions n WHERE n.series_instance_uid = jobs.series_instance_uid
           AND n.revision > jobs.revision AND {_is_undecided("jobs")})
"""  # noqa: S608 - constants

#: Of a row of jobs: whether it is not known yet what was sent of an earlier revision, which the
#: result shall name. A sender that has not been heard of for so long is waited for no more.
IS_EARLIER_UNDER_WAY = f"""
EXISTS (SELECT 1 FROM jobs e JOIN deliveries d ON d.job_id = e.id
 WHERE e.series_instance_uid = jobs.series_instance_uid AND e.revision < jobs.revision
   AND {of_one_line("e", "jobs")} AND d.sender IS NOT NULL AND d.lease_until_s > :now)
"""  # noqa: S608 - constants

#: Of a row of jobs: whether a later revision has a result.
IS_OUTDATED = f"""
EXISTS (SELECT 1 FROM jobs n JOIN results r ON r.job_id = n.id
 WHERE n.series_instance_uid = jobs.series_instance_uid AND n.revision > jobs.revision
   AND {of_one_line("n", "jobs")})
"""  # noqa: S608 - constants

#: Of a row of deliveries: whether a later revision is on its way to a result.
IS_OVERTAKEN = f"""
EXISTS (SELECT 1 FROM jobs j JOIN revisions n
    ON n.series_instance_uid = j.series_instance_uid AND n.revision > j.revision
 WHERE j.id = deliveries.job_id AND j.state <> 'superseded' AND {_is_undecided("j")})
"""  # noqa: S608 - constants


def replace_earlier(connection: sqlite3.Connection, now: str, job_id: int) -> None:
    """A job has a result: the earlier revisions and their jobs of its line are superseded.

    What is being sent at this moment may arrive; what waits to be sent does not go any more.
    """
    is_archive, series_instance_uid, revision = connection.execute(
        f"SELECT {_is_archive('jobs')}, series_instance_uid, revision FROM jobs"  # noqa: S608
        " WHERE id = ?",
        (job_id,),
    ).fetchone()
    if not is_archive:
        connection.execute(
            "UPDATE revisions SET state = 'superseded', state_at = ?"
            " WHERE series_instance_uid = ? AND revision < ? AND state = 'ready'",
            (now, series_instance_uid, revision),
        )
    jobs = connection.execute(
        "UPDATE jobs SET state = 'superseded', superseded_by = ?, fence = fence + 1,"  # noqa: S608
        " worker = NULL, lease_until_s = NULL, state_at = ?"
        " WHERE series_instance_uid = ? AND revision < ?"
        " AND state NOT IN ('superseded', 'skipped')"
        f" AND EXISTS (SELECT 1 FROM jobs n WHERE n.id = ? AND {of_one_line('n', 'jobs')})"
        " RETURNING id, revision",
        (revision, now, series_instance_uid, revision, job_id),
    ).fetchall()
    for job in jobs:
        connection.execute(
            "UPDATE deliveries SET state = ?, state_at = ? WHERE job_id = ? AND state = ?",
            (DeliveryState.SUPERSEDED, now, job["id"], DeliveryState.PENDING),
        )
        detail = f"by revision {revision}"
        change = Change(
            series_instance_uid, job["revision"], State.SUPERSEDED, None, detail, job["id"]
        )
        note(connection, now, change)
