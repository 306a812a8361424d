-- seq is the number of the transaction, moved by the counter event_base, times
-- 65536, and the place in it: so its order is one in which transactions end.
CREATE TABLE event (
    seq        BIGINT PRIMARY KEY,
    time       BIGINT NOT NULL, -- Unix nanoseconds
    type       TEXT   NOT NULL,
    process_id TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    generation BIGINT NOT NULL,
    data       BYTEA
);
CREATE INDEX event_type ON event (type, seq);
CREATE INDEX event_name ON event (name, seq) WHERE name <> '';
-- How far each source has been appended.
CREATE TABLE source (
    name   TEXT PRIMARY KEY,
    cursor BIGINT NOT NULL
);
-- event_base: what is added to the number of a transaction. event_trimmed: the
-- newest seq that was removed.
CREATE TABLE counter (
    name TEXT PRIMARY KEY,
    next BIGINT NOT NULL
);
INSERT INTO counter (name, next) VALUES ('event_base', 0), ('event_trimmed', 0);
