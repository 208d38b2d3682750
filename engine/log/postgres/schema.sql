-- The schema, version 1: in a schema (CREATE SCHEMA) of its own, made as a whole or not at all.
-- One row. The lineage is another one whenever the store has gone back, found in that run of it, at that time.
CREATE TABLE penstock (
    version integer NOT NULL,
    single  boolean PRIMARY KEY DEFAULT true CHECK (single),
    lineage text    NOT NULL DEFAULT '',
    run     text    NOT NULL DEFAULT '',
    at      timestamptz
);
INSERT INTO penstock (version) VALUES (1);

-- Numbers of lives. Events and records hang on the life, not on the session: a new life starts at once while the old
-- one's rows are purged later.
CREATE SEQUENCE lives;

-- One row per session: where its newest life stands. It is in doubt while its lineage is not the store's; `suspected` is
-- the run of the store in which it was last put in doubt alone. An append changes tail and token, which no index holds, so that
-- Postgres can write the row anew beside the old one (HOT).
CREATE TABLE sessions (
    id      text    COLLATE "C" PRIMARY KEY,
    life    bigint  NOT NULL,
    epoch   text    NOT NULL,
    tail    bigint  NOT NULL,
    token   bigint  NOT NULL,
    deleted boolean NOT NULL DEFAULT false,
    owner   text    NOT NULL,
    lineage   text  NOT NULL DEFAULT '',
    suspected text  NOT NULL DEFAULT ''
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX sessions_by_life ON sessions (life);
CREATE INDEX sessions_living ON sessions (id) WHERE NOT deleted;

CREATE TABLE events (
    life   bigint NOT NULL,
    number bigint NOT NULL,
    body   bytea  NOT NULL,
    PRIMARY KEY (life, number)
);

CREATE TABLE records (
    life  bigint NOT NULL,
    key   text   COLLATE "C" NOT NULL,
    value bytea  NOT NULL,
    PRIMARY KEY (life, key)
);
-- Who holds a key is asked for plain keys only (`open`); compound ones (`message/…`) are many and stay out.
CREATE INDEX records_plain ON records (key, life) WHERE strpos(key, '/') = 0;

-- What a list tells of each living session; gone as soon as the life is over. A rank is kept as its negative, so that
-- places and ids go up together.
CREATE TABLE summaries (
    id    text   COLLATE "C" PRIMARY KEY,
    place bigint NOT NULL,
    body  bytea  NOT NULL
);
CREATE INDEX summaries_by_place ON summaries (place, id);

-- Lives that are over, whose events and records are still to be purged.
CREATE TABLE ended (life bigint PRIMARY KEY);

-- What each writer was told of its last round.
CREATE TABLE writers (
    writer   uuid        PRIMARY KEY,
    round    bigint      NOT NULL,
    verdicts text[]      NOT NULL DEFAULT '{}',
    at       timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
