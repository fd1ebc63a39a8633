"""The durable core: runs and their history, lanes, keys, workers, limits."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = """
CREATE TABLE lineshaft_lane (
    id INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    task TEXT NOT NULL,
    version TEXT NOT NULL,
    tenant TEXT NOT NULL
);

CREATE TABLE lineshaft_run (
    id TEXT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL,
    lane INTEGER NOT NULL,
    due_us INTEGER NOT NULL,
    order_us INTEGER NOT NULL,
    priority INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    fence INTEGER NOT NULL DEFAULT 0,
    worker INTEGER,
    suspect INTEGER,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    claimed_us INTEGER,
    started_us INTEGER,
    key TEXT,
    first_id TEXT NOT NULL,
    retry_of TEXT,
    args TEXT,
    failure TEXT
) WITHOUT ROWID;

CREATE INDEX lineshaft_run_ready ON lineshaft_run (lane, order_us) WHERE state = 'ready' AND suspect IS NULL;
CREATE INDEX lineshaft_run_scheduled ON lineshaft_run (due_us) WHERE state = 'scheduled';
CREATE INDEX lineshaft_run_held ON lineshaft_run (worker) WHERE worker IS NOT NULL;
CREATE INDEX lineshaft_run_suspect ON lineshaft_run (suspect) WHERE suspect IS NOT NULL;
CREATE INDEX lineshaft_run_cancel ON lineshaft_run (worker) WHERE cancel_requested = 1;
CREATE INDEX lineshaft_run_parked ON lineshaft_run (claimed_us, lane) WHERE state = 'parked';
CREATE INDEX lineshaft_run_retry ON lineshaft_run (retry_of) WHERE retry_of IS NOT NULL;

CREATE TABLE lineshaft_run_history (
    id TEXT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL,
    lane INTEGER NOT NULL,
    due_us INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    worker INTEGER,
    key TEXT,
    first_id TEXT NOT NULL,
    retry_of TEXT,
    args TEXT,
    started_us INTEGER,
    finished_us INTEGER NOT NULL,
    wall_us INTEGER,
    cpu_us INTEGER,
    result TEXT,
    failure TEXT
) WITHOUT ROWID;

CREATE INDEX lineshaft_run_history_unsuccessful ON lineshaft_run_history (id) WHERE state <> 'succeeded';
CREATE INDEX lineshaft_run_history_retry ON lineshaft_run_history (retry_of) WHERE retry_of IS NOT NULL;

CREATE TABLE lineshaft_attempt (
    run_id TEXT NOT NULL,
    fence INTEGER NOT NULL,
    number INTEGER NOT NULL,
    worker INTEGER,
    started_us INTEGER NOT NULL,
    finished_us INTEGER NOT NULL,
    wall_us INTEGER NOT NULL,
    cpu_us INTEGER NOT NULL,
    failure TEXT,
    PRIMARY KEY (run_id, fence)
) WITHOUT ROWID;

CREATE TABLE lineshaft_payload (
    run_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (run_id, kind)
);

CREATE TABLE lineshaft_key (
    task TEXT NOT NULL,
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    run_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    retention_us INTEGER NOT NULL,
    expires_us INTEGER,
    PRIMARY KEY (task, tenant, key)
) WITHOUT ROWID;

CREATE INDEX lineshaft_key_expiry ON lineshaft_key (expires_us) WHERE expires_us IS NOT NULL;

CREATE TABLE lineshaft_progress (
    run_id TEXT NOT NULL PRIMARY KEY,
    data TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE lineshaft_worker (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    started_us INTEGER NOT NULL,
    expires_boot_us INTEGER NOT NULL,
    queues TEXT NOT NULL,
    tasks TEXT NOT NULL,
    terms TEXT NOT NULL
);

CREATE TABLE lineshaft_slot (
    key TEXT NOT NULL,
    worker INTEGER NOT NULL,
    held INTEGER NOT NULL,
    PRIMARY KEY (key, worker)
) WITHOUT ROWID;

CREATE TABLE lineshaft_pace (
    key TEXT NOT NULL PRIMARY KEY,
    arrival_ns INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE lineshaft_listener (
    address TEXT NOT NULL PRIMARY KEY
) WITHOUT ROWID;
"""


def upgrade() -> None:
    """Create the tables."""
    for statement in _TABLES.split(";"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop them, with all runs."""
    for line in _TABLES.splitlines():
        if line.startswith("CREATE TABLE "):
            op.execute(f"DROP TABLE {line.split()[2]}")
