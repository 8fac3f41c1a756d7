-- name: within
-- Of a transaction of the caller's: its isolation, which log it reaches, and when it began, which
-- tells it from every other on its connection.
SELECT current_setting('transaction_isolation'), identity, transaction_timestamp() FROM {schema}.log

-- name: lock_within
SELECT head, transaction_timestamp() FROM {schema}.log FOR UPDATE

-- name: head
SELECT head FROM {schema}.log

-- name: lock_head
-- (It is set before the row is locked, which comes last.)
SELECT head FROM {schema}.log WHERE set_config('lock_timeout', '{lock}', true) <> '' FOR UPDATE

-- name: append
SELECT head, since FROM {schema}.append($1, set_config('lock_timeout', '{lock}', true) <> '' AND $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)

-- name: append_locked
-- The same where the lock is held already, be it in a transaction of the caller's.
SELECT head, since FROM {schema}.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)

-- name: append_next
-- Append a batch that was judged when the head was at $1, if it is there still, and if there is
-- nothing in some ranges. While the head is the same, so is all below it, whenever it is looked at:
-- so lock and check can be one statement here. Who waits for the lock sees the head that then is.
-- Texts of many events come as one, which spares the driver an array's element each.
WITH moved AS (
    UPDATE {schema}.log SET head = head + $2::int
    WHERE head = $1::bigint
      AND NOT EXISTS (
          SELECT FROM unnest(
              string_to_array($11, E'\x1f'), string_to_array($12, E'\x1f'),
              string_to_array($13, E'\x1f')::bigint[]
          ) AS leg (tag, type, after)
          CROSS JOIN LATERAL (
              SELECT FROM {schema}.event_tags AS t
              WHERE t.tag = leg.tag AND t.type = leg.type AND t.position > leg.after
              LIMIT 1
          ) AS found
      )
      -- Acknowledged means durable, whatever the server or the role has been told.
      AND (current_setting('synchronous_commit') <> 'off'
           OR set_config('synchronous_commit', 'on', true) = 'on')
      AND set_config('lock_timeout', '{lock}', true) <> ''
    RETURNING 1
), marks AS (
    INSERT INTO {schema}.event_tags (tag, type, position)
    SELECT t.tag, t.type, $1 + t.event::int
    FROM moved, unnest(
        string_to_array($8, E'\x1f'), string_to_array($9, E'\x1f'), string_to_array($10, E'\x1f')
    ) AS t (tag, type, event)
)
INSERT INTO {schema}.events (position, id, type, tags, data, metadata)
SELECT $1 + e.place, e.id, e.type, e.tags,
       convert_to(e.data, 'UTF8'), convert_to(e.metadata, 'UTF8')
FROM moved, unnest(
    string_to_array($3, E'\x1f'), string_to_array($4, E'\x1f'), string_to_array($5, E'\x1f'),
    string_to_array($6, E'\x1f'), string_to_array($7, E'\x1f')
) WITH ORDINALITY AS e (id, type, tags, data, metadata, place)

-- name: append_one
-- The same for a batch of one event with nothing to look for: what a single client waits for. It is
-- a fifth faster, as nothing is taken apart.
WITH moved AS (
    UPDATE {schema}.log SET head = head + 1
    WHERE head = $1::bigint
      AND (current_setting('synchronous_commit') <> 'off'
           OR set_config('synchronous_commit', 'on', true) = 'on')
      AND set_config('lock_timeout', '{lock}', true) <> ''
    RETURNING 1
), marks AS (
    INSERT INTO {schema}.event_tags (tag, type, position)
    SELECT t.tag, $3, $1 + 1 FROM moved, (VALUES {marks}) AS t (tag)
)
INSERT INTO {schema}.events (position, id, type, tags, data, metadata)
SELECT $1 + 1, $2, $3, $4, $5, $6 FROM moved

-- name: holder
-- Whose transaction keeps the others from the head: the oldest that has locked something of the
-- log's, and does not wait itself.
SELECT a.pid, a.usename, a.application_name, a.state, now() - a.xact_start AS since
FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
WHERE l.relation = '{schema}.log'::regclass AND l.granted AND l.mode <> 'AccessShareLock'
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.pid <> pg_backend_pid()
  AND NOT EXISTS (SELECT FROM pg_locks AS w WHERE w.pid = l.pid AND NOT w.granted)
ORDER BY a.xact_start LIMIT 1

-- name: appended_since
SELECT coalesce('[' || string_agg(format('[%s,"%s",%s]', e.position, e.type, e.tags), ',' ORDER BY e.position) || ']', '[]')
FROM {schema}.events AS e WHERE e.position > $1

-- name: stored_since
-- Which of a batch's events are stored, and where.
SELECT e.id, e.position FROM {schema}.events AS e
WHERE e.position > $1 AND e.id = ANY ($2::text[]) ORDER BY e.position

-- name: id_at
SELECT id FROM {schema}.events WHERE position = $1

-- name: recall
SELECT key, content, first, last, rejection FROM {schema}.idempotency_keys WHERE key = ANY ($1::text[])

-- name: notify
SELECT pg_notify($1, $2)

-- name: types_of_tag
-- The types that occur with a tag, by one seek for each, and the head at that moment.
WITH RECURSIVE found (type) AS (
    (SELECT t.type FROM {schema}.event_tags AS t WHERE t.tag = $1 ORDER BY t.type LIMIT 1)
    UNION ALL
    SELECT (
        SELECT t.type FROM {schema}.event_tags AS t
        WHERE t.tag = $1 AND t.type > found.type ORDER BY t.type LIMIT 1
    )
    FROM found WHERE found.type IS NOT NULL
)
SELECT (SELECT head FROM {schema}.log), (SELECT array_agg(type) FROM found WHERE type IS NOT NULL)

-- name: leg
-- The positions of one tag and type, in the index's own order: so legs are merged, never sorted.
(SELECT t.position FROM {schema}.event_tags AS t
 WHERE t.tag = {tag} AND t.type = {type} AND t.position > $1 AND t.position <= $2 {also}
 ORDER BY t.position LIMIT $3)

-- name: leg_of_type
(SELECT t.position FROM {schema}.events AS t
 WHERE t.type = {type} AND t.position > $1 AND t.position <= $2
 ORDER BY t.position LIMIT $3)

-- name: leg_also
AND EXISTS (SELECT FROM {schema}.event_tags AS o WHERE o.tag = {tag} AND o.type = t.type AND o.position = t.position)

-- name: first_matches
-- The first event of each of many ranges, for the conditions that are too old to be remembered.
SELECT leg.number, found.position
FROM unnest($1::int[], $2::text[], $3::text[], $4::bigint[]) AS leg (number, tag, type, after)
CROSS JOIN LATERAL (
    SELECT t.position FROM {schema}.event_tags AS t
    WHERE t.tag = leg.tag AND t.type = leg.type AND t.position > leg.after AND t.position <= $5
    ORDER BY t.position LIMIT 1
) AS found

-- name: match_legs
SELECT position FROM ({legs}) AS p ORDER BY position LIMIT $3

-- name: match_any
SELECT position FROM {schema}.events WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3

-- name: read_legs
-- One row at least, for the head: what is read is all there is up to it.
SELECT l.head, e.position, e.id, e.type, e.tags, e.data, e.metadata
FROM {schema}.log AS l LEFT JOIN (
    SELECT e.* FROM (SELECT position FROM ({legs}) AS p ORDER BY position LIMIT $3) AS p
    CROSS JOIN LATERAL (
        SELECT e.* FROM {schema}.events AS e WHERE e.position = p.position OFFSET 0
    ) AS e
) AS e ON true

-- name: read_all
-- Positions have no gaps and become visible in order: what is read shows where the log ends.
SELECT position, id, type, tags, data, metadata FROM {schema}.events
WHERE position > $1 AND position <= $2 ORDER BY position

-- name: read_points
-- Many small reads at once: each leg asks for the events of one tag and type.
SELECT l.head, e.number, e.position, e.id, e.type, e.tags, e.data, e.metadata
FROM {schema}.log AS l LEFT JOIN (
    SELECT leg.number, e.*
    FROM unnest($1::int[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])
        AS leg (number, tag, type, after, until)
    CROSS JOIN LATERAL (
        SELECT t.position FROM {schema}.event_tags AS t
        WHERE t.tag = leg.tag AND t.type = leg.type
          AND t.position > leg.after AND t.position <= leg.until
        ORDER BY t.position LIMIT $6
    ) AS p
    CROSS JOIN LATERAL (
        SELECT e.* FROM {schema}.events AS e WHERE e.position = p.position OFFSET 0
    ) AS e
) AS e ON true
