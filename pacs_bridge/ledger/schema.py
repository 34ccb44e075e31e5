"""The tables of the ledger, their version, and how an older file becomes a newer one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from inference.reasons import Reason
from pacs_bridge.errors import PermanentError
from pacs_bridge.ledger.first_tables import FIRST_TABLES

#: "PACB" (sqlite.org/fileformat2.html, application id at offset 68).
APPLICATION_ID = 0x50414342

Migration = Callable[[sqlite3.Connection], None]


def _create(connection: sqlite3.Connection) -> None:
    for statement in _statements(FIRST_TABLES):
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


_ANNOUNCED_OF_EACH = """
CREATE TABLE announced_of_each (      -- the latest counts, of each whose series it may be
    id INTEGER PRIMARY KEY,
    series_instance_uid TEXT NOT NULL,
    study_instance_uid TEXT,          -- NULL: not said
    patient_key TEXT,
    instance_count INTEGER NOT NULL,
    priority INTEGER,
    announced_at TEXT NOT NULL
) STRICT;
INSERT INTO announced_of_each (series_instance_uid, study_instance_uid, patient_key,
    instance_count, priority, announced_at)
    SELECT series_instance_uid, study_instance_uid, patient_key,
    instance_count, priority, announced_at FROM announced;
DROP TABLE announced;
ALTER TABLE announced_of_each RENAME TO announced;
CREATE INDEX announced_of ON announced (series_instance_uid);
CREATE INDEX announced_when ON announced (announced_at);
"""


def _keep_announcements_of_each(connection: sqlite3.Connection) -> None:
    columns = {row[1] for row in connection.execute("PRAGMA table_info(announced)")}
    if "id" in columns:  # for a while ``_keep_announcements`` made the table as it is now
        return
    for statement in _statements(_ANNOUNCED_OF_EACH):
        connection.execute(statement)


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
    _keep_announcements_of_each,
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
