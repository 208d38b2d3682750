-- What is called of a log: each call is a transaction of its own, so that a client that stops holds no lock.
-- The names end in a digest of this text (here VERSION): no client ever runs the functions of another version.
--
-- A round answers for each write NULL when it landed, or where the session stands that refused it: '[]' or
-- '[epoch, tail, token, deleted, owner, doubted]'. A round that comes again changes nothing and gets the same answer. One
-- that comes after a later one is refused: nobody waits for it any more. Where the store does not remember what it has
-- answered, it went back, and nothing is carried out.

-- NULL for a new round of a writer, or what it was told of this one. Holds the writer's row until the round is over, and
-- shares the lock under which all is put in doubt. `answered` is the last round that was answered, 0 where it does not
-- matter.
CREATE FUNCTION remembered_VERSION(of_writer uuid, this bigint, answered bigint) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    last writers%ROWTYPE;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtextextended(current_schema(), 0));
    IF answered > 0 AND NOT EXISTS (SELECT FROM writers WHERE writer = of_writer AND round >= answered) THEN
        RAISE 'the store has lost a round that it had answered' USING ERRCODE = 'PS002';
    END IF;
    INSERT INTO writers AS w (writer, round) VALUES (of_writer, this)
    ON CONFLICT (writer) DO UPDATE SET round = this, at = now() WHERE w.round < this;
    IF FOUND THEN
        RETURN NULL;
    END IF;
    SELECT * INTO last FROM writers WHERE writer = of_writer;
    IF last.round > this THEN
        RAISE 'this writer has gone on since' USING ERRCODE = 'PS001';
    END IF;
    RETURN last.verdicts;
END $$;

CREATE FUNCTION standing_VERSION(at sessions, lineage text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN at.id IS NULL THEN '[]'
    ELSE json_build_array(at.epoch, at.tail, at.token, at.deleted, at.owner, at.lineage <> lineage)::text END
$$;

-- A round of writes, carried out in order, each by itself. The caller has sorted them by session: so whoever waits for
-- another's lock holds none that the other will ask for.
-- The conditions are those of engine/log/fence.py, which tells the caller in its order why a write did not land. All of
-- a write come before its first change.
CREATE FUNCTION write_VERSION(
    of_writer uuid, this bigint, answered bigint,
    kinds text[], names text[], epochs text[], tokens bigint[], tails bigint[], counts bigint[], owners text[],
    anews text[], places bigint[], bodies bytea[],
    event_of integer[], event_numbers bigint[], event_bodies bytea[],
    record_of integer[], record_keys text[], record_values bytea[]
) RETURNS text[] LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    told text[] := remembered_VERSION(of_writer, this, answered);
    now_lineage text := (SELECT lineage FROM penstock WHERE single);
    landed bigint[] := '{}';
    of_life bigint;
    at sessions%ROWTYPE;
    w record;
BEGIN
    IF told IS NOT NULL THEN
        RETURN told;
    END IF;
    told := '{}';
    FOR w IN
        SELECT * FROM unnest(kinds, names, epochs, tokens, tails, counts, owners, anews, places, bodies)
        AS w (kind, name, epoch, token, tail, count, owner, anew, place, body)
    LOOP
        at := NULL;
        LOOP
            CASE w.kind
            WHEN 'append' THEN
                UPDATE sessions AS s SET tail = s.tail + w.count, token = w.token
                WHERE s.id = w.name AND NOT s.deleted AND s.epoch = w.epoch AND s.token <= w.token
                AND s.lineage = now_lineage AND s.tail = w.tail
                RETURNING s.life INTO of_life;
            WHEN 'create' THEN
                INSERT INTO sessions AS s (id, life, epoch, tail, token, owner, lineage)
                SELECT w.name, nextval('lives'), w.epoch, w.count, w.token, w.owner, now_lineage WHERE w.tail = 0
                ON CONFLICT (id) DO UPDATE SET
                    life = excluded.life, epoch = excluded.epoch, tail = excluded.tail, token = excluded.token,
                    deleted = false, owner = excluded.owner, lineage = excluded.lineage
                WHERE s.deleted AND s.epoch <> excluded.epoch AND s.token <= excluded.token
                RETURNING s.life INTO of_life;
            WHEN 'keep' THEN
                SELECT s.life INTO of_life FROM sessions AS s
                WHERE s.id = w.name AND NOT s.deleted AND s.epoch = w.epoch FOR UPDATE;
            WHEN 'claim' THEN
                UPDATE sessions AS s SET token = w.token, owner = w.owner, epoch = coalesce(w.anew, s.epoch),
                    lineage = CASE WHEN w.anew IS NULL THEN s.lineage ELSE now_lineage END
                WHERE s.id = w.name AND NOT s.deleted AND s.epoch = w.epoch AND s.token = w.tail
                RETURNING s.life INTO of_life;
            WHEN 'release' THEN
                UPDATE sessions AS s SET token = w.token, owner = ''
                WHERE s.id = w.name AND NOT s.deleted AND s.token <= w.token AND s.owner = w.owner
                RETURNING s.life INTO of_life;
            WHEN 'delete' THEN
                UPDATE sessions AS s SET token = w.token, deleted = true, owner = ''
                WHERE s.id = w.name AND NOT s.deleted AND s.epoch = w.epoch AND s.token <= w.token
                RETURNING s.life INTO of_life;
            WHEN 'force' THEN
                UPDATE sessions AS s SET epoch = w.epoch, tail = 0, token = w.token, deleted = true, owner = ''
                WHERE s.id = w.name
                RETURNING s.life INTO of_life;
            END CASE;
            -- Another may have moved it just now: what is said of it, and a second look, are under its lock.
            EXIT WHEN of_life IS NOT NULL OR at.id IS NOT NULL;
            SELECT * INTO at FROM sessions WHERE id = w.name FOR UPDATE;
            EXIT WHEN NOT FOUND;
        END LOOP;
        landed := array_append(landed, of_life);
        told := array_append(told, CASE WHEN of_life IS NULL THEN standing_VERSION(at, now_lineage) END);
        IF of_life IS NOT NULL AND w.kind IN ('delete', 'force') THEN
            INSERT INTO ended VALUES (of_life) ON CONFLICT DO NOTHING;
            DELETE FROM summaries WHERE id = w.name;
        ELSIF of_life IS NOT NULL AND w.kind = 'claim' THEN
            INSERT INTO records
            SELECT of_life, 'claim/' || lpad(w.token::text, 16, '0'), w.body || convert_to(s.tail || '}', 'UTF8')
            FROM sessions AS s WHERE s.id = w.name
            ON CONFLICT (life, key) DO UPDATE SET value = excluded.value;
        ELSIF of_life IS NOT NULL AND w.place IS NOT NULL THEN
            INSERT INTO summaries VALUES (w.name, w.place, w.body)
            ON CONFLICT (id) DO UPDATE SET place = excluded.place, body = excluded.body;
        END IF;
    END LOOP;
    IF event_of <> '{}' THEN
        INSERT INTO events
        SELECT landed[e.place], e.number, e.body FROM unnest(event_of, event_numbers, event_bodies) AS e (place, number, body)
        WHERE landed[e.place] IS NOT NULL;
    END IF;
    IF record_of <> '{}' THEN
        WITH last AS (
            SELECT DISTINCT ON (landed[r.place], r.key) landed[r.place] AS life, r.key, r.value
            FROM unnest(record_of, record_keys, record_values) WITH ORDINALITY AS r (place, key, value, nth)
            WHERE landed[r.place] IS NOT NULL ORDER BY landed[r.place], r.key, r.nth DESC
        ), gone AS (
            DELETE FROM records AS r USING last WHERE r.life = last.life AND r.key = last.key AND last.value IS NULL
        )
        INSERT INTO records SELECT * FROM last WHERE value IS NOT NULL
        ON CONFLICT (life, key) DO UPDATE SET value = excluded.value;
    END IF;
    UPDATE writers SET verdicts = told WHERE writer = of_writer;
    RETURN told;
END $$;

-- A round that consists of one `Compact`. A body that is NULL removes the event, a value that is NULL the record.
CREATE FUNCTION compact_VERSION(
    of_writer uuid, this bigint, answered bigint, name text, of_epoch text, numbers bigint[], bodies bytea[],
    keys text[], new_values bytea[], forgotten text[], forgotten_values bytea[]
) RETURNS text[] LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    told text[] := remembered_VERSION(of_writer, this, answered);
    now_lineage text := (SELECT lineage FROM penstock WHERE single);
    at sessions%ROWTYPE;
BEGIN
    IF told IS NOT NULL THEN
        RETURN told;
    END IF;
    SELECT * INTO at FROM sessions WHERE id = name FOR UPDATE;
    IF FOUND AND NOT at.deleted AND at.epoch = of_epoch AND at.lineage = now_lineage THEN
        told := ARRAY[NULL::text];
        UPDATE events AS e SET body = n.body FROM unnest(numbers, bodies) AS n (number, body)
        WHERE e.life = at.life AND e.number = n.number AND n.body IS NOT NULL;
        DELETE FROM events AS e USING unnest(numbers, bodies) AS n (number, body)
        WHERE e.life = at.life AND e.number = n.number AND n.body IS NULL;
        DELETE FROM records AS r USING unnest(keys, new_values) AS n (key, value)
        WHERE r.life = at.life AND r.key = n.key AND n.value IS NULL;
        INSERT INTO records SELECT at.life, n.key, n.value FROM unnest(keys, new_values) AS n (key, value)
        WHERE n.value IS NOT NULL ON CONFLICT (life, key) DO UPDATE SET value = excluded.value;
        DELETE FROM records AS r USING unnest(forgotten, forgotten_values) AS n (key, value)
        WHERE r.life = at.life AND r.key = n.key AND r.value = n.value;
    ELSE
        told := ARRAY[standing_VERSION(at, now_lineage)];
    END IF;
    UPDATE writers SET verdicts = told WHERE writer = of_writer;
    RETURN told;
END $$;

-- The store has gone back, or is said to have: put what it holds in doubt. How that is known:
--
--   round    the writer was answered this round, and it is not there. From here on it is remembered. All is in doubt, but
--            not twice for the same: another writer may have said it.
--   missed   the session stood there, and does not any more.
--   said     the same, but by somebody who may be mistaken: that session alone, once for each run of the store.
--   all      somebody who knows it says so.
--
-- Whether something is in doubt now that was not. No round is under way meanwhile.
CREATE FUNCTION doubt_VERSION(
    how text, another text, of_writer uuid, this bigint, name text, of_epoch text, of_tail bigint, of_token bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    -- Another one in each process that a store was, and whenever a standby became the primary.
    this_run text := pg_postmaster_start_time()::text || left(pg_walfile_name(pg_current_wal_lsn()), 8);
    past penstock%ROWTYPE;
    s sessions%ROWTYPE;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(current_schema(), 0));
    SELECT * INTO past FROM penstock WHERE single;
    IF how = 'round' THEN
        INSERT INTO writers (writer, round) VALUES (of_writer, this)
        ON CONFLICT (writer) DO UPDATE SET round = this, at = now();
        IF past.run = this_run AND past.at > now() - interval '1 minute' THEN
            RETURN false;
        END IF;
    ELSIF how <> 'all' THEN
        SELECT * INTO s FROM sessions WHERE id = name FOR UPDATE;
        IF NOT FOUND OR s.deleted OR s.lineage <> past.lineage
            OR split_part(s.epoch, 'R', 1) <> split_part(of_epoch, 'R', 1)
            OR NOT (s.token < of_token OR (s.epoch = of_epoch AND s.tail < of_tail))
        THEN
            RETURN false;
        END IF;
        IF how = 'said' THEN
            UPDATE sessions SET lineage = 'doubted', suspected = this_run WHERE id = name AND suspected <> this_run;
            RETURN FOUND;
        END IF;
    END IF;
    UPDATE penstock SET lineage = another, run = this_run, at = now() WHERE single;
    RETURN true;
END $$;

-- Remove a few rows of a life that is over. Whether there may be more.
CREATE FUNCTION purge_VERSION(few bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
    count bigint;
BEGIN
    SELECT life INTO gone FROM ended ORDER BY life LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM events WHERE life = gone AND number = ANY (
        ARRAY(SELECT number FROM events WHERE life = gone ORDER BY number LIMIT few)
    );
    GET DIAGNOSTICS count = ROW_COUNT;
    IF count < few THEN
        DELETE FROM records WHERE life = gone AND key = ANY (
            ARRAY(SELECT key FROM records WHERE life = gone ORDER BY key LIMIT few)
        );
        GET DIAGNOSTICS count = ROW_COUNT;
    END IF;
    IF count < few THEN
        DELETE FROM ended WHERE life = gone;
    END IF;
    RETURN true;
END $$;
