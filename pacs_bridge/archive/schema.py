"""The tables of a plan.

A plan is one SQLite file in the folder of a run. It holds what lies where, what the headers of
each series say, and what became of the series. Names and IDs of patients are in it as keyed
hashes only; names of files and folders are what they are.
"""

from __future__ import annotations

import sqlite3

from inference.reasons import Reason
from pacs_bridge.errors import PermanentError

#: "PACA" (sqlite.org/fileformat2.html, application id at offset 68).
APPLICATION_ID = 0x50414341
VERSION = 3

_TABLES = """
CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL               -- JSON
) STRICT, WITHOUT ROWID;

CREATE TABLE folders (                -- and zip files, which are read like folders
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,
    is_zip INTEGER NOT NULL,
    size INTEGER NOT NULL DEFAULT 0,  -- of a zip file, to tell whether it changed
    modified_ns INTEGER NOT NULL DEFAULT 0,
    walk INTEGER NOT NULL,            -- the last that met it
    reason TEXT,                      -- why it cannot be looked into
    detail TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE files (
    folder INTEGER NOT NULL REFERENCES folders,
    name BLOB NOT NULL,               -- in a zip file: number of the member
    size INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,     -- in a zip file: checksum of the member
    part INTEGER REFERENCES parts,    -- NULL: of no series
    place INTEGER NOT NULL,           -- within its part
    sop_instance_uid TEXT NOT NULL,
    reason TEXT,                      -- why the file is left out
    PRIMARY KEY (folder, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX files_part ON files (part) WHERE part IS NOT NULL;
CREATE INDEX files_reason ON files (reason) WHERE reason IS NOT NULL;
CREATE INDEX files_faulty ON files (folder) WHERE part IS NULL AND reason <> 'no-dicom';

CREATE TABLE parts (                  -- headers of one series that were read together
    id INTEGER PRIMARY KEY,
    series TEXT NOT NULL,
    instances BLOB NOT NULL
) STRICT;
CREATE INDEX parts_series ON parts (series);

CREATE TABLE unexamined (             -- series of which files came, changed or went
    series TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE listed (                 -- without any, everything that was found is wanted
    series TEXT PRIMARY KEY,
    study_instance_uid TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE series (
    number INTEGER PRIMARY KEY,       -- in the order in which they were met
    series TEXT NOT NULL UNIQUE,      -- Series Instance UID, or a word where there is none
    study_instance_uid TEXT NOT NULL,
    source TEXT NOT NULL,             -- "files", or the name of the source that has it
    instances INTEGER NOT NULL,
    planes INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    contents TEXT NOT NULL,           -- digest of what tells whether files of it changed
    plan_reason TEXT,                 -- why it is not to run; NULL: it is
    plan_detail TEXT NOT NULL,
    findings TEXT NOT NULL,           -- JSON list of reason codes
    state TEXT NOT NULL DEFAULT 'planned',
    reason TEXT,
    detail TEXT NOT NULL DEFAULT '',
    revision INTEGER,                 -- of the job that was made of it
    job INTEGER,
    fed_at TEXT,
    ended_at TEXT,
    done_contents TEXT,               -- what the outcome rests on
    done_recipe TEXT,
    made TEXT,                        -- JSON: what was made, and what it cost
    -- JSON: keyed hashes of what a source says of the patient
    patient TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX series_to_run ON series (number)
    WHERE plan_reason IS NULL AND state = 'planned';
CREATE INDEX series_waiting ON series (number) WHERE state = 'waiting';
CREATE INDEX series_outcome ON series (plan_reason, state, reason, bytes);
CREATE INDEX series_fed ON series (fed_at) WHERE fed_at IS NOT NULL;
CREATE INDEX series_ended ON series (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    started_at TEXT NOT NULL,
    seen_at TEXT NOT NULL,            -- the last sign of life
    seconds REAL NOT NULL,            -- up to that sign, waits outside the window left out
    recipe TEXT NOT NULL,
    model TEXT NOT NULL,
    model_digest TEXT NOT NULL,
    is_own INTEGER                    -- 0: workers of a service did the work; NULL: not known
) STRICT;
"""


#: What brings a plan of an earlier version to the next one.
_MIGRATIONS = {
    1: "ALTER TABLE series ADD COLUMN patient TEXT NOT NULL DEFAULT ''",
    2: "ALTER TABLE runs ADD COLUMN is_own INTEGER",
}


def prepare(connection: sqlite3.Connection, path_name: str) -> None:
    """Make the tables where there are none; those of an earlier version are brought over.

    Raises
    ------
    PermanentError
        If the file is of another program or a later version of this one.
    """
    if _versions(connection) == (APPLICATION_ID, VERSION):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _due(connection, path_name):
            connection.execute(statement)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _due(connection: sqlite3.Connection, path_name: str) -> list[str]:
    """What is to be done, as seen by the only one who writes."""
    application, version = _versions(connection)
    stamp = [f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {VERSION}"]
    if application == APPLICATION_ID and 0 < version <= VERSION:
        return [*(_MIGRATIONS[each] for each in range(version, VERSION)), *stamp]
    if (application, version) != (0, 0) or connection.execute(
        "SELECT 1 FROM sqlite_schema"
    ).fetchone():
        raise PermanentError(
            Reason.LEDGER_UNAVAILABLE,
            f"{path_name} has version {version} and application id {application:#x};"
            f" this program writes version {VERSION}",
        )
    return [*(part for part in _TABLES.split(";\n") if part.strip()), *stamp]


def _versions(connection: sqlite3.Connection) -> tuple[int, int]:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    return application, connection.execute("PRAGMA user_version").fetchone()[0]
