"""The tables of the ledger, their version, and how an older file becomes a newer one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from inference.reasons import Reason
from pacs_bridge.errors import PermanentError

#: "PACB" (sqlite.org/fileformat2.html, application id at offset 68).
APPLICATION_ID = 0x50414342

_TABLES = """
CREATE TABLE machine (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    boot_id TEXT NOT NULL,            -- steady seconds below count from this boot
    listener_epoch INTEGER NOT NULL   -- starts of the listener so far
) STRICT;

CREATE TABLE associations (
    id INTEGER PRIMARY KEY,           -- rises with the order of opening
    calling_ae_title TEXT NOT NULL,
    called_ae_title TEXT NOT NULL,
    address TEXT NOT NULL,
    opened_at TEXT NOT NULL,
    ended_at TEXT,
    outcome TEXT                      -- released or aborted
) STRICT;
CREATE INDEX associations_open ON associations (id) WHERE ended_at IS NULL;

CREATE TABLE series (
    series_instance_uid TEXT PRIMARY KEY,
    study_instance_uid TEXT NOT NULL,
    patient_key TEXT NOT NULL,        -- keyed hash of the Patient ID
    revision INTEGER NOT NULL,        -- the current one
    facts TEXT NOT NULL,              -- JSON: what routes select by
    expected_instances INTEGER        -- what a sender says the series has
) STRICT, WITHOUT ROWID;

CREATE TABLE revisions (
    series_instance_uid TEXT NOT NULL REFERENCES series,
    revision INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    detail TEXT NOT NULL DEFAULT '',
    activity INTEGER NOT NULL,        -- rises with whatever arrives or ends
    abort_boundary INTEGER,           -- missing instances may have been lost in associations
                                      -- up to this one; a later clean one makes up for them
    hold_reason TEXT,                 -- only an operator takes this away
    first_at TEXT NOT NULL,
    last_at TEXT NOT NULL,
    state_at TEXT NOT NULL,
    PRIMARY KEY (series_instance_uid, revision)
) STRICT, WITHOUT ROWID;
CREATE INDEX revisions_open ON revisions (first_at) WHERE state IN ('receiving', 'quiet');
CREATE INDEX revisions_held ON revisions (state_at) WHERE state = 'incomplete';
CREATE INDEX revisions_without_job ON revisions (state_at)
    WHERE state IN ('receiving', 'quiet', 'incomplete', 'skipped', 'dead');

CREATE TABLE touches (
    series_instance_uid TEXT NOT NULL REFERENCES series,
    association_id INTEGER NOT NULL REFERENCES associations,
    PRIMARY KEY (series_instance_uid, association_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX touches_association ON touches (association_id);

CREATE TABLE instances (
    sop_instance_uid TEXT PRIMARY KEY,
    series_instance_uid TEXT NOT NULL REFERENCES series,
    revision INTEGER NOT NULL,        -- the first that holds it
    sop_class_uid TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    digest TEXT NOT NULL,             -- SHA-256 of the data set as received
    data_offset_bytes INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,      -- of the file
    frame_count INTEGER NOT NULL,
    path TEXT NOT NULL,               -- relative to the data folder
    received_at TEXT NOT NULL,
    association_id INTEGER NOT NULL REFERENCES associations,
    resent INTEGER NOT NULL DEFAULT 0,
    deleted_at TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX instances_series ON instances (series_instance_uid, revision);

CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY,
    reason TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    series_instance_uid TEXT NOT NULL,
    digest TEXT NOT NULL,
    path TEXT NOT NULL UNIQUE,        -- relative to the data folder
    received_at TEXT NOT NULL,
    association_id INTEGER NOT NULL REFERENCES associations
) STRICT;
CREATE INDEX quarantine_series ON quarantine (series_instance_uid);

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    series_instance_uid TEXT NOT NULL,
    revision INTEGER NOT NULL,
    route TEXT NOT NULL,
    model TEXT NOT NULL,
    destinations TEXT NOT NULL,       -- JSON list of names
    priority INTEGER NOT NULL,        -- 0 is claimed first
    state TEXT NOT NULL,
    reason TEXT,
    detail TEXT NOT NULL DEFAULT '',
    superseded_by INTEGER,            -- revision
    attempts INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0, -- failures that count, and leases that ran out
    waited_s REAL NOT NULL DEFAULT 0, -- sum of the waits between attempts
    fence INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    lease_until_s REAL,               -- steady
    due_s REAL NOT NULL DEFAULT 0,    -- steady
    due_at TEXT,                      -- the same, for people
    created_at TEXT NOT NULL,
    state_at TEXT NOT NULL,
    UNIQUE (series_instance_uid, revision, route, model)
) STRICT;
CREATE INDEX jobs_waiting ON jobs (priority, id) WHERE state IN ('ready', 'retry');
CREATE INDEX jobs_changed ON jobs (state_at);
CREATE INDEX jobs_leased ON jobs (lease_until_s) WHERE worker IS NOT NULL;

CREATE TABLE results (
    job_id INTEGER NOT NULL REFERENCES jobs,
    stack INTEGER NOT NULL,
    kind TEXT NOT NULL,
    path TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    series_instance_uid TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    deleted_at TEXT,
    PRIMARY KEY (job_id, stack, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX results_instance ON results (sop_instance_uid);
CREATE INDEX results_series ON results (series_instance_uid);

CREATE TABLE findings (
    job_id INTEGER NOT NULL REFERENCES jobs,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX findings_job ON findings (job_id);

CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY,
    job_id INTEGER NOT NULL REFERENCES jobs,
    stack INTEGER NOT NULL,
    destination TEXT NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    detail TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    waited_s REAL NOT NULL DEFAULT 0,
    fence INTEGER NOT NULL DEFAULT 0,
    sender TEXT,
    lease_until_s REAL,
    due_s REAL NOT NULL DEFAULT 0,
    due_at TEXT,
    sent_sop_instance_uid TEXT,
    state_at TEXT NOT NULL,
    UNIQUE (job_id, stack, destination)
) STRICT;
CREATE INDEX deliveries_waiting ON deliveries (priority, id) WHERE state = 'pending';
CREATE INDEX deliveries_leased ON deliveries (lease_until_s) WHERE sender IS NOT NULL;

CREATE TABLE history (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    series_instance_uid TEXT NOT NULL,
    revision INTEGER NOT NULL,
    job_id INTEGER,
    delivery_id INTEGER,
    state TEXT NOT NULL,
    reason TEXT,
    detail TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX history_series ON history (series_instance_uid, id);

CREATE TABLE counts (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""

Migration = Callable[[sqlite3.Connection], None]


def _create(connection: sqlite3.Connection) -> None:
    for statement in _statements(_TABLES):
        connection.execute(statement)
    connection.execute("INSERT INTO machine VALUES (1, '', 0)")


_REFUSED = """
CREATE TABLE refused (                -- sent, not kept, and not come since
    series_instance_uid TEXT NOT NULL, -- of which nothing else may have come yet
    sop_instance_uid TEXT NOT NULL,   -- empty where not even the command named one
    answer TEXT NOT NULL,             -- status, hexadecimal, or aborted
    calling_ae_title TEXT NOT NULL,
    refused_at TEXT NOT NULL,
    PRIMARY KEY (series_instance_uid, sop_instance_uid)
) STRICT, WITHOUT ROWID;
CREATE INDEX refused_instance ON refused (sop_instance_uid);

ALTER TABLE quarantine ADD COLUMN vouched_at TEXT; -- an operator let the series go on without it
"""


def _note_what_is_owed(connection: sqlite3.Connection) -> None:
    for statement in _statements(_REFUSED):
        connection.execute(statement)


_FACTS = """
CREATE TABLE facts (                  -- what routes select by
    series_instance_uid TEXT NOT NULL REFERENCES series,
    facts TEXT NOT NULL,              -- JSON
    instance_count INTEGER NOT NULL,  -- that say so
    PRIMARY KEY (series_instance_uid, facts)
) STRICT, WITHOUT ROWID;
INSERT INTO facts SELECT series_instance_uid, facts, max(1, (SELECT count(*) FROM instances i
    WHERE i.series_instance_uid = series.series_instance_uid)) FROM series;
ALTER TABLE series DROP COLUMN facts;
"""


def _count_facts(connection: sqlite3.Connection) -> None:
    for statement in _statements(_FACTS):
        connection.execute(statement)


_SOURCES = """
ALTER TABLE jobs ADD COLUMN source TEXT NOT NULL DEFAULT 'spool'; -- where its files are: a name
ALTER TABLE jobs ADD COLUMN study_instance_uid TEXT NOT NULL DEFAULT ''; -- if it is asked for
CREATE INDEX jobs_from_elsewhere ON jobs (source, state) WHERE source <> 'spool';
"""


def _name_sources(connection: sqlite3.Connection) -> None:
    for statement in _statements(_SOURCES):
        connection.execute(statement)


_KEPT_SOURCES = """
ALTER TABLE series ADD COLUMN has_sources INTEGER NOT NULL DEFAULT 1; -- an instance not deleted
CREATE INDEX series_with_sources ON series (series_instance_uid) WHERE has_sources = 1;
UPDATE series SET has_sources = 0 WHERE NOT EXISTS (SELECT 1 FROM instances i
    WHERE i.series_instance_uid = series.series_instance_uid AND i.deleted_at IS NULL);
CREATE TRIGGER instance_entered AFTER INSERT ON instances BEGIN
    UPDATE series SET has_sources = 1
     WHERE series_instance_uid = NEW.series_instance_uid AND has_sources = 0;
END;
CREATE TRIGGER instance_came_back AFTER UPDATE OF deleted_at ON instances
WHEN NEW.deleted_at IS NULL BEGIN
    UPDATE series SET has_sources = 1
     WHERE series_instance_uid = NEW.series_instance_uid AND has_sources = 0;
END;
"""


def _tell_kept_sources(connection: sqlite3.Connection) -> None:
    for statement in _statements(_KEPT_SOURCES):
        connection.execute(statement)


_LEDGER_ID = """
ALTER TABLE machine ADD COLUMN ledger_id TEXT NOT NULL DEFAULT ''; -- no other ledger has it
UPDATE machine SET ledger_id = lower(hex(randomblob(16)));
"""


def _tell_ledgers_apart(connection: sqlite3.Connection) -> None:
    for statement in _statements(_LEDGER_ID):
        connection.execute(statement)


_AGAIN = """
ALTER TABLE deliveries ADD COLUMN again INTEGER NOT NULL DEFAULT 0; -- when its result is made anew
"""


def _note_what_goes_again(connection: sqlite3.Connection) -> None:
    for statement in _statements(_AGAIN):
        connection.execute(statement)


_BOUNDED_QUARANTINE = """
ALTER TABLE quarantine ADD COLUMN size_bytes INTEGER; -- of the file; NULL: not looked at yet
ALTER TABLE quarantine ADD COLUMN deleted_at TEXT;
CREATE INDEX quarantine_kept ON quarantine (received_at, size_bytes) WHERE deleted_at IS NULL;
CREATE INDEX quarantine_unmeasured ON quarantine (id)
    WHERE size_bytes IS NULL AND deleted_at IS NULL;
"""


def _bound_quarantine(connection: sqlite3.Connection) -> None:
    for statement in _statements(_BOUNDED_QUARANTINE):
        connection.execute(statement)


_ANNOUNCED = """
CREATE TABLE announced (              -- said of a series of which nothing has come yet
    series_instance_uid TEXT PRIMARY KEY,
    study_instance_uid TEXT,          -- NULL: not said
    patient_key TEXT,
    instance_count INTEGER NOT NULL,
    priority INTEGER,
    announced_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX announced_when ON announced (announced_at);

ALTER TABLE series ADD COLUMN priority INTEGER; -- its jobs are no more urgent; NULL: not said
"""


def _keep_announcements(connection: sqlite3.Connection) -> None:
    for statement in _statements(_ANNOUNCED):
        connection.execute(statement)


_ARCHIVE_RESULTS = """
CREATE TABLE archive_results (        -- of archive runs that this bridge did the work for
    job_id INTEGER PRIMARY KEY REFERENCES jobs,
    contents TEXT NOT NULL,           -- digest of what tells whether files of its source changed
    recipe TEXT NOT NULL,             -- digest of the model and all settings that matter
    made TEXT NOT NULL                -- JSON, for the account of a run
) STRICT;
"""


def _note_archive_results(connection: sqlite3.Connection) -> None:
    for statement in _statements(_ARCHIVE_RESULTS):
        connection.execute(statement)


def _count_failures_of_series(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE jobs ADD COLUMN series_failures INTEGER NOT NULL DEFAULT 0")


#: The n-th takes a file of version n to version n + 1; a file that is not there has version 0.
MIGRATIONS: Sequence[Migration] = (
    _create,
    _note_what_is_owed,
    _count_facts,
    _name_sources,
    _tell_kept_sources,
    _tell_ledgers_apart,
    _note_what_goes_again,
    _bound_quarantine,
    _keep_announcements,
    _note_archive_results,
    _count_failures_of_series,
)


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the file to the newest version, in one transaction: it is the old one or the new one.

    Raises
    ------
    PermanentError
        If the file is of another program, or of a later version of this one.
    """
    newest = len(migrations)
    if _version(connection) == newest and _application(connection) == APPLICATION_ID:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        if _application(connection) not in (0, APPLICATION_ID) or version > newest:
            raise PermanentError(
                Reason.INTERNAL_ERROR,
                f"the ledger has version {version} and application id "
                f"{_application(connection):#x}; this program writes version {newest}",
            )
        for migration in migrations[version:]:
            migration(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {newest}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _application(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA application_id").fetchone()[0])


def _statements(script: str) -> list[str]:
    """Single statements: ``executescript`` would commit the migration's transaction."""
    statements, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements
