-- Append a batch that was judged when the head was at `expected`. One call is one transaction.
--
-- Returns the head that the batch follows, and what others have appended since `expected`; or no
-- head, having done nothing, when the judgement may not hold: then it is judged again under the
-- lock. VOLATILE, so that under READ COMMITTED each statement sees what was committed before it.
CREATE OR REPLACE FUNCTION {schema}.append(
    expected    bigint,
    alone       boolean,   -- the judgement holds for exactly this head
    ids         text[],    -- the events, in order
    types       text[],
    tags        text[],
    datas       bytea[],
    metadatas   bytea[],
    tag         text[],    -- the tags of all events,
    tag_type    text[],    -- with the type
    tag_event   int[],     -- and the place among them (1, 2 …) of theirs
    keys        text[],    -- idempotency keys; first and last are places among the events
    contents    bytea[],
    firsts      int[],
    lasts       int[],
    rejections  bytea[],
    leg_tag     text[],    -- ranges in which there must be no event
    leg_type    text[],
    leg_after   bigint[],
    OUT head bigint,
    OUT since text
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    base bigint;
BEGIN
    -- Acknowledged means durable, whatever the server or the role has been told.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    -- The lock comes first, in a statement of its own; then the checks; then the inserts.
    SELECT l.head INTO base FROM {schema}.log AS l FOR UPDATE;
    IF base <> expected THEN
        -- (So much by others is not worth being looked through while the lock is held.)
        IF alone OR base < expected OR base - expected > 25000 OR EXISTS (
            -- Sent before, by a connection that was lost: it is stored already.
            SELECT FROM {schema}.events AS e WHERE e.position > expected AND e.id = ANY (ids)
        ) THEN
            RETURN;
        END IF;
    END IF;
    IF cardinality(leg_tag) > 0 AND EXISTS (
        SELECT FROM unnest(leg_tag, leg_type, leg_after) AS leg (tag, type, after)
        CROSS JOIN LATERAL (
            SELECT FROM {schema}.event_tags AS t
            WHERE t.tag = leg.tag AND t.type = leg.type AND t.position > leg.after
            LIMIT 1
        ) AS found
    ) THEN
        RETURN;
    END IF;
    IF cardinality(keys) > 0 THEN
        IF EXISTS (SELECT FROM {schema}.idempotency_keys AS k WHERE k.key = ANY (keys)) THEN
            RETURN;
        END IF;
        INSERT INTO {schema}.idempotency_keys (key, content, first, last, rejection)
        SELECT k.key, k.content, CASE k.first WHEN 0 THEN 0 ELSE base + k.first END,
               base + k.last, k.rejection
        FROM unnest(keys, contents, firsts, lasts, rejections)
            AS k (key, content, first, last, rejection);
    END IF;
    IF cardinality(ids) > 0 THEN
        INSERT INTO {schema}.events (position, id, type, tags, data, metadata)
        SELECT base + e.place, e.id, e.type, e.tags, e.data, e.metadata
        FROM unnest(ids, types, tags, datas, metadatas)
            WITH ORDINALITY AS e (id, type, tags, data, metadata, place);
        INSERT INTO {schema}.event_tags (tag, type, position)
        SELECT t.tag, t.type, base + t.event
        FROM unnest(tag, tag_type, tag_event) AS t (tag, type, event);
        UPDATE {schema}.log AS l SET head = base + cardinality(ids);
    END IF;
    IF base > expected THEN
        SELECT '[' || string_agg(
            format('[%s,"%s",%s]', e.position, e.type, e.tags), ',' ORDER BY e.position
        ) || ']'
        INTO since FROM {schema}.events AS e WHERE e.position > expected AND e.position <= base;
    END IF;
    head := base;
END $$;
