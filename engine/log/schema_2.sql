-- From version 1, which had one index of events, by life and offset, to version 2: as a whole or not at all.
BEGIN IMMEDIATE;

ALTER TABLE events RENAME TO events_1;
CREATE TABLE events (
    id     INTEGER PRIMARY KEY,
    life   INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    body   BLOB
);
-- A life's events came in the order of their offsets.
INSERT INTO events (id, life, offset, body)
SELECT rowid * 2 + (rowid / 8192 IS NOT lag(rowid) OVER (PARTITION BY life ORDER BY offset) / 8192), life, offset, body
FROM events_1 ORDER BY rowid;
DROP TABLE events_1;
CREATE UNIQUE INDEX events_by_chunk ON events (id / 16384, life, offset);
CREATE UNIQUE INDEX events_first ON events (life, offset) WHERE id & 1;

PRAGMA user_version = 2;
COMMIT;
