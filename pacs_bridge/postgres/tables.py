"""Our tables beside Procrastinate's: made by the bridge, looked at by its workers.

Procrastinate's tables hold what waits and what is worked on; a row of ours holds what its rows
cannot: fence, lease, failures that count, and the outcome until the bridge has taken it. What
stands in them all is derived from the ledger: they can be dropped, and are filled again.
"""

from __future__ import annotations

from procrastinate.schema import SchemaManager

from inference.reasons import Reason
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.postgres.server import Connection, Server

VERSION = 3

#: "PACB", as the ledger's application id: two that make the tables at once take turns.
_LOCK = 0x50414342

_TABLES = """
CREATE TABLE pacs_bridge_server (
    is_only boolean PRIMARY KEY CHECK (is_only),
    version integer NOT NULL
);
CREATE TABLE pacs_bridge_queues (
    name text PRIMARY KEY,
    owner text NOT NULL                 -- the bridge whose jobs these are
);
CREATE SEQUENCE pacs_bridge_job_ids;
CREATE TABLE pacs_bridge_jobs (
    queue text NOT NULL,
    id bigint NOT NULL,                 -- of a job that was handed over: the ledger's
    request_key text NOT NULL,
    priority smallint NOT NULL,         -- Procrastinate's: the highest first
    ledger_fence bigint NOT NULL,       -- 0: not handed over from a ledger
    task_id bigint,                     -- procrastinate_jobs.id; NULL once it is settled
    state text NOT NULL,
    reason text,
    detail text NOT NULL DEFAULT '',
    fence bigint NOT NULL,
    attempts integer NOT NULL,
    deaths integer NOT NULL DEFAULT 0,  -- failures that count, and leases that ran out
    series_failures integer NOT NULL DEFAULT 0, -- those that are the series' own
    waited_s double precision NOT NULL DEFAULT 0,
    worker text,
    lease_s double precision,
    heartbeats integer NOT NULL DEFAULT 0, -- of this lease: whoever looks sees whether they rise
    outcome jsonb,                      -- results and findings
    PRIMARY KEY (queue, id),
    UNIQUE (queue, request_key)
);
CREATE UNIQUE INDEX pacs_bridge_jobs_task ON pacs_bridge_jobs (task_id);
CREATE INDEX pacs_bridge_jobs_leased ON pacs_bridge_jobs (queue, id)
    WHERE worker IS NOT NULL;
CREATE INDEX pacs_bridge_jobs_waiting ON pacs_bridge_jobs (queue, priority)
    WHERE task_id IS NOT NULL AND worker IS NULL;
CREATE INDEX pacs_bridge_jobs_settled ON pacs_bridge_jobs (queue, id) WHERE task_id IS NULL;
CREATE TABLE pacs_bridge_workers (
    id bigint PRIMARY KEY,              -- a number that its process drew
    queue text NOT NULL,
    shown bigint NOT NULL,              -- whoever looks sees whether it rises
    shown_at timestamptz NOT NULL,      -- for people: the server's time
    leaves text[] NOT NULL              -- kinds of jobs that it leaves to others
);
CREATE INDEX pacs_bridge_workers_queue ON pacs_bridge_workers (queue);
"""


def prepare(server: Server, name: str, owner: str) -> None:
    """Make the tables where they are not there, and the queue ours.

    Raises
    ------
    TransientError
        If the server cannot be used.
    PermanentError
        ``wrong-queue`` if the tables are of another version, or the queue of another bridge.
    """
    with server.transaction() as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        if not _exists(connection, "procrastinate_jobs"):
            connection.execute(SchemaManager.get_schema())
        if not _exists(connection, "pacs_bridge_server"):
            connection.execute(_TABLES)
            connection.execute("INSERT INTO pacs_bridge_server VALUES (true, %s)", (VERSION,))
        connection.execute(
            "INSERT INTO pacs_bridge_queues VALUES (%s, %s) ON CONFLICT DO NOTHING", (name, owner)
        )
        check(connection, name, owner)


def check(connection: Connection, name: str, owner: str) -> None:
    """Whether the tables are those of this program, and the queue is ours.

    Raises
    ------
    TransientError
        ``queue-unavailable`` if no bridge has made the queue yet.
    PermanentError
        ``wrong-queue`` if it is another's, or of another version.
    """
    row = connection.execute("SELECT version FROM pacs_bridge_server").fetchone()
    if row is None or row["version"] != VERSION:
        raise PermanentError(
            Reason.WRONG_QUEUE,
            f"the tables have version {row and row['version']}, this program uses {VERSION}:"
            " drop the database, the bridge fills it again",
        )
    row = connection.execute(
        "SELECT owner FROM pacs_bridge_queues WHERE name = %s", (name,)
    ).fetchone()
    if row is None:
        raise TransientError(Reason.QUEUE_UNAVAILABLE, f"no bridge has made the queue {name!r} yet")
    if row["owner"] != owner:
        raise PermanentError(Reason.WRONG_QUEUE, f"the queue {name!r} is another bridge's")


def _exists(connection: Connection, table: str) -> bool:
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL AS it", (table,)).fetchone()
    return bool(row and row["it"])
