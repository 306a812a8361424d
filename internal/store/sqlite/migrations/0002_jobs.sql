-- Times are Unix nanoseconds, 0 for none. A job's row is its place in the queue.
CREATE TABLE job (
    id           INTEGER PRIMARY KEY,
    name         TEXT    NOT NULL,
    queue        TEXT    NOT NULL,
    priority     INTEGER NOT NULL, -- higher runs first
    state        TEXT    NOT NULL,
    due_at       INTEGER NOT NULL,
    attempt      INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL,
    epoch        INTEGER NOT NULL DEFAULT 0, -- the fencing token
    owner        TEXT    NOT NULL DEFAULT '',
    created_at   INTEGER NOT NULL,
    started_at   INTEGER NOT NULL DEFAULT 0,
    ended_at     INTEGER NOT NULL DEFAULT 0,
    deadline     INTEGER NOT NULL DEFAULT 0,
    cancel_asked INTEGER NOT NULL DEFAULT 0,
    key          TEXT    NOT NULL DEFAULT '', -- jobs of one key are limited together
    unique_key   TEXT,
    unique_scope INTEGER NOT NULL DEFAULT 0,
    unique_until INTEGER NOT NULL DEFAULT 0,
    tags         TEXT    NOT NULL DEFAULT '', -- ",a,b,"
    options      TEXT    NOT NULL DEFAULT '', -- JSON of what only a running attempt needs
    progress     REAL    NOT NULL DEFAULT 0,
    message      TEXT    NOT NULL DEFAULT '',
    error        TEXT    NOT NULL DEFAULT '',
    args         BLOB,
    result       BLOB
) STRICT;
CREATE INDEX job_available ON job (queue, priority DESC, due_at, id) WHERE state = 'available';
CREATE INDEX job_waiting ON job (due_at) WHERE state IN ('scheduled', 'retryable');
CREATE INDEX job_running ON job (queue, key) WHERE state = 'running';
CREATE INDEX job_ended ON job (ended_at) WHERE ended_at > 0;
CREATE INDEX job_deadline ON job (deadline) WHERE deadline > 0 AND state IN ('scheduled', 'available', 'retryable');
CREATE UNIQUE INDEX job_unique ON job (unique_key) WHERE unique_key IS NOT NULL;
-- How attempts ended, but for the one that completed, which is in its job's row.
CREATE TABLE job_attempt (
    job        INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    owner      TEXT    NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER NOT NULL,
    outcome    TEXT    NOT NULL,
    error      TEXT    NOT NULL,
    PRIMARY KEY (job, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE job_log (
    job     INTEGER NOT NULL,
    line    INTEGER NOT NULL,
    epoch   INTEGER NOT NULL,
    time    INTEGER NOT NULL,
    level   TEXT    NOT NULL,
    message TEXT    NOT NULL,
    PRIMARY KEY (job, line)
) STRICT, WITHOUT ROWID;
CREATE TABLE queue (
    name        TEXT PRIMARY KEY,
    concurrency INTEGER NOT NULL DEFAULT 0, -- over all nodes; 0: no limit
    per_key     INTEGER NOT NULL DEFAULT 0,
    rate_limit  INTEGER NOT NULL DEFAULT 0, -- starts in each rate_period
    rate_period INTEGER NOT NULL DEFAULT 0,
    tokens      REAL    NOT NULL DEFAULT 0,
    filled_at   INTEGER NOT NULL DEFAULT 0,
    paused      INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
-- The servers that share this database; each start is a new one.
CREATE TABLE node (
    id         TEXT PRIMARY KEY,
    name       TEXT    NOT NULL,
    started_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE counter (
    name TEXT PRIMARY KEY,
    next INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE schedule (
    name       TEXT PRIMARY KEY,
    definition TEXT    NOT NULL, -- JSON
    next_at    INTEGER NOT NULL, -- 0: never
    last_at    INTEGER NOT NULL DEFAULT 0,
    last_job   INTEGER NOT NULL DEFAULT 0,
    paused     INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX schedule_next ON schedule (next_at) WHERE paused = 0 AND next_at > 0;
