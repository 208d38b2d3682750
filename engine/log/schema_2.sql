-- From version 1, which had one index of events, by life and offset, to version 2: as a whole or not at all.
BEGIN IMMEDIATE;

ALTER TABLE events RENAME TO events_1;
CREATE TABLE events (
    id     INTEGER PRIMARY KEY,
    life   INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    body   BLOB
);
-- A life's events came in the order of their offsets. Row by row, by the old index: nothing is sorted, however large it is.
INSERT INTO events (id, life, offset, body)
SELECT rowid * 2 + (rowid / 8192 IS NOT (
           SELECT b.rowid / 8192 FROM events_1 AS b
           WHERE b.life = a.life AND b.offset < a.offset ORDER BY b.offset DESC LIMIT 1
       )), life, offset, body
FROM events_1 AS a ORDER BY rowid;
DROP TABLE events_1;
CREATE UNIQUE INDEX events_by_chunk ON events (id / 16384, life, offset);
CREATE UNIQUE INDEX events_first ON events (life, offset) WHERE id & 1;

PRAGMA user_version = 2;
COMMIT;
