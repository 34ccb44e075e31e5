"""The tables of the ledger as they were first; what became of them since says ``schema``."""

from __future__ import annotations

FIRST_TABLES = """
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
