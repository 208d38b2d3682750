-- What is called of a log: each call is a transaction of its own, so that a client that stops holds no lock.
-- The names end in a digest of this text (here VERSION): no client ever runs the functions of another version.
--
-- A round answers for each write NULL when it landed, or where the session stands that refused it: '[]' or
-- '[epoch, tail, token, deleted, owner]'. A round that comes again changes nothing and gets the same answer. One that
-- comes after a later one is refused: nobody waits for it any more.

-- NULL for a new round of a writer, or what it was told of this one. Holds the writer's row until the round is over.
CREATE FUNCTION remembered_VERSION(of_writer uuid, this bigint) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    last writers%ROWTYPE;
BEGIN
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

CREATE FUNCTION standing_VERSION(at sessions) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN at.id IS NULL THEN '[]'
    ELSE json_build_array(at.epoch, at.tail, at.token, at.deleted, at.owner)::text END
$$;

-- A round of writes, carried out in order, each by itself. The caller has sorted them by session: so whoever waits for
-- another's lock holds none that the other will ask for.
-- The conditions are those of engine/log/fence.py, which tells the caller in its order why a write did not land. All of
-- a write come before its first change.
CREATE FUNCTION write_VERSION(
    of_writer uuid, this bigint,
    kinds text[], names text[], epochs text[], tokens bigint[], tails bigint[], counts bigint[], owners text[],
    places bigint[], bodies bytea[],
    event_of integer[], event_numbers bigint[], event_bodies bytea[],
    record_of integer[], record_keys text[], record_values bytea[]
) RETURNS text[] LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    told text[] := remembered_VERSION(of_writer, this);
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
        SELECT * FROM unnest(kinds, names, epochs, tokens, tails, counts, owners, places, bodies)
        AS w (kind, name, epoch, token, tail, count, owner, place, body)
    LOOP
        at := NULL;
        LOOP
            CASE w.kind
            WHEN 'append' THEN
                UPDATE sessions AS s SET tail = s.tail + w.count, token = w.token
                WHERE s.id = w.name AND NOT s.deleted AND s.epoch = w.epoch AND s.token <= w.token AND s.tail = w.tail
                RETURNING s.life INTO of_life;
            WHEN 'create' THEN
                INSERT INTO sessions AS s (id, life, epoch, tail, token, owner)
                SELECT w.name, nextval('lives'), w.epoch, w.count, w.token, w.owner WHERE w.tail = 0
                ON CONFLICT (id) DO UPDATE SET
                    life = excluded.life, epoch = excluded.epoch, tail = excluded.tail, token = excluded.token,
                    deleted = false, owner = excluded.owner
                WHERE s.deleted AND s.epoch <> excluded.epoch AND s.token <= excluded.token
                RETURNING s.life INTO of_life;
            WHEN 'keep' THEN
                SELECT s.life INTO of_life FROM sessions AS s
                WHERE s.id = w.name AND NOT s.deleted AND s.epoch = w.epoch FOR UPDATE;
            WHEN 'claim' THEN
                UPDATE sessions AS s SET token = w.token, owner = w.owner
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
        told := array_append(told, CASE WHEN of_life IS NULL THEN standing_VERSION(at) END);
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
    of_writer uuid, this bigint, name text, of_epoch text, numbers bigint[], bodies bytea[],
    keys text[], new_values bytea[], forgotten text[], forgotten_values bytea[]
) RETURNS text[] LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    told text[] := remembered_VERSION(of_writer, this);
    at sessions%ROWTYPE;
BEGIN
    IF told IS NOT NULL THEN
        RETURN told;
    END IF;
    SELECT * INTO at FROM sessions WHERE id = name FOR UPDATE;
    IF FOUND AND NOT at.deleted AND at.epoch = of_epoch THEN
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
        told := ARRAY[standing_VERSION(at)];
    END IF;
    UPDATE writers SET verdicts = told WHERE writer = of_writer;
    RETURN told;
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
