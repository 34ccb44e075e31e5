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

_IS_UNDECIDED = """
(n.state IN ('receiving', 'quiet')
 OR EXISTS (SELECT 1 FROM jobs m WHERE m.series_instance_uid = n.series_instance_uid
               AND m.revision = n.revision
               AND m.state IN ('ready', 'retry', 'claimed', 'segmented', 'encoded')))
"""

#: Of a row of jobs: whether a later revision is on its way to a result.
IS_JOB_OVERTAKEN = f"""
EXISTS (SELECT 1 FROM revisions n WHERE n.series_instance_uid = jobs.series_instance_uid
           AND n.revision > jobs.revision AND {_IS_UNDECIDED})
"""  # noqa: S608 - constants

#: Of a row of jobs: whether it is not known yet what was sent of an earlier revision, which the
#: result shall name. A sender that has not been heard of for so long is waited for no more.
IS_EARLIER_UNDER_WAY = """
EXISTS (SELECT 1 FROM jobs e JOIN deliveries d ON d.job_id = e.id
 WHERE e.series_instance_uid = jobs.series_instance_uid AND e.revision < jobs.revision
   AND d.sender IS NOT NULL AND d.lease_until_s > :now)
"""

#: Of a row of jobs: whether a later revision has a result.
IS_OUTDATED = """
EXISTS (SELECT 1 FROM jobs n JOIN results r ON r.job_id = n.id
 WHERE n.series_instance_uid = jobs.series_instance_uid AND n.revision > jobs.revision)
"""

#: Of a row of deliveries: whether a later revision is on its way to a result.
IS_OVERTAKEN = f"""
EXISTS (SELECT 1 FROM jobs j JOIN revisions n
    ON n.series_instance_uid = j.series_instance_uid AND n.revision > j.revision
 WHERE j.id = deliveries.job_id AND j.state <> 'superseded' AND {_IS_UNDECIDED})
"""  # noqa: S608 - constants


def replace_earlier(
    connection: sqlite3.Connection, now: str, series_instance_uid: str, revision: int
) -> None:
    """A revision has a result: the earlier ones and their jobs are superseded.

    What is being sent at this moment may arrive; what waits to be sent does not go any more.
    """
    connection.execute(
        "UPDATE revisions SET state = 'superseded', state_at = ?"
        " WHERE series_instance_uid = ? AND revision < ? AND state = 'ready'",
        (now, series_instance_uid, revision),
    )
    jobs = connection.execute(
        "UPDATE jobs SET state = 'superseded', superseded_by = ?, fence = fence + 1,"
        " worker = NULL, lease_until_s = NULL, state_at = ?"
        " WHERE series_instance_uid = ? AND revision < ?"
        " AND state NOT IN ('superseded', 'skipped') RETURNING id, revision",
        (revision, now, series_instance_uid, revision),
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
