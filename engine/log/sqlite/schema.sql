-- The schema, version 4. A database is created by this script as a whole or not at all.
BEGIN IMMEDIATE;

-- One row per life of a session; the life with the highest number is the current one. Events and records
-- hang on the life, not on the session: a new life starts at once while the old one's rows are purged later.
CREATE TABLE sessions (
    life    INTEGER PRIMARY KEY,
    session TEXT    NOT NULL,
    epoch   TEXT    NOT NULL,
    -- The log ends here or behind: at the last event's offset, if that is higher. Thus a plain append
    -- inserts events and touches nothing else. Who ever removes a life's last events raises it first.
    tail    INTEGER NOT NULL,
    token   INTEGER NOT NULL,
    -- 0: living. 1: over, its events and records may still have to be purged. 2: over and purged; the row
    -- stays as a tombstone until a later life is there.
    ended   INTEGER NOT NULL,
    -- The engine that created or claimed it last; empty for nobody.
    owner   TEXT    NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX sessions_by_id ON sessions (session, life);
CREATE UNIQUE INDEX sessions_living ON sessions (session) WHERE ended = 0;
CREATE INDEX sessions_to_purge ON sessions (life) WHERE ended = 1;

-- Ordered by arrival, so that a commit of many sessions writes its pages in one place; and so is the index, but for
-- chunks of some events (layout.py), in which it is by life. The first event of a life in a chunk has an odd id: by these a
-- life's chunks are found. Such a row stays when the event is removed, with no body.
CREATE TABLE events (
    id     INTEGER PRIMARY KEY,
    life   INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    body   BLOB
);
CREATE UNIQUE INDEX events_by_chunk ON events (id / 16384, life, offset);
CREATE UNIQUE INDEX events_first ON events (life, offset) WHERE id & 1;

CREATE TABLE records (
    life  INTEGER NOT NULL,
    key   TEXT    NOT NULL,
    value BLOB    NOT NULL,
    PRIMARY KEY (life, key)
) WITHOUT ROWID;
-- Who holds a key is asked for plain keys only (`open`); compound ones (`message/…`) are many and stay out.
CREATE INDEX records_plain ON records (key, life) WHERE instr(key, '/') = 0;

-- What a list tells of each living session. The first place is the highest rank's: a rank is kept as its negative, so
-- that places and ids go up together. Gone as soon as the life is over, so that a page of a list is a walk of either
-- index and of nothing else; each holds all that such a walk asks for.
CREATE TABLE summaries (
    life    INTEGER PRIMARY KEY,
    session TEXT    NOT NULL,
    place   INTEGER NOT NULL,
    body    BLOB    NOT NULL
);
CREATE INDEX summaries_by_place ON summaries (place, session);
CREATE INDEX summaries_by_id ON summaries (session, place);

PRAGMA application_id = 0x70656e73; -- "pens"
PRAGMA user_version = 4;
COMMIT;
