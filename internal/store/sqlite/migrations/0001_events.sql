-- The log. seq is the rowid, so every index ends with it by itself.
CREATE TABLE event (
    seq        INTEGER PRIMARY KEY,
    time       INTEGER NOT NULL, -- Unix nanoseconds
    type       TEXT    NOT NULL,
    process_id TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    data       BLOB
) STRICT;
CREATE INDEX event_type ON event (type);
CREATE INDEX event_name ON event (name) WHERE name <> '';
-- How far each source has been appended.
CREATE TABLE source (
    name   TEXT PRIMARY KEY,
    cursor INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
