-- What operators look at and change. Every change of what followers must know raises revisions.

-- name: keys
SELECT g.projection, g.key, g.slice, g.events, g.skipped, coalesce(g.first, 0) AS position, g.oldest,
    coalesce(p.event, ''), coalesce(p.kind, ''), coalesce(p.error, ''), p.since,
    coalesce(p.attempts, 0)
FROM (
    SELECT projection, key, min(slice) AS slice,
        count(DISTINCT position) FILTER (WHERE state = 'queued') AS events,
        count(DISTINCT position) FILTER (WHERE state = 'skipped') AS skipped,
        min(position) FILTER (WHERE state = 'queued') AS first,
        min(time) FILTER (WHERE state = 'queued') AS oldest
    FROM {schema}.diptych_parked GROUP BY projection, key
) AS g
LEFT JOIN LATERAL (
    SELECT * FROM {schema}.diptych_parked AS q
    WHERE q.projection = g.projection AND q.key = g.key AND q.position = g.first
    ORDER BY q.slice LIMIT 1
) AS p ON true
ORDER BY g.projection, g.key

-- name: parked
SELECT projection, key, position, slice, slices, event_id, event, time, since, kind, error, attempts,
    state, actor, why, decided
FROM {schema}.diptych_parked WHERE projection = $1 AND ($2::text IS NULL OR key = $2)
    AND (NOT $3::boolean OR state = 'queued')
ORDER BY position, key, slice LIMIT $4

-- name: pauses
SELECT projection, since, actor, why FROM {schema}.diptych_pauses

-- The first stands: the update holds its row and changes nothing.
-- name: pause
INSERT INTO {schema}.diptych_pauses (projection, since, actor, why) VALUES ($1, $2, $3, $4)
ON CONFLICT (projection) DO UPDATE SET projection = excluded.projection
RETURNING projection, since, actor, why

-- name: resume
DELETE FROM {schema}.diptych_pauses WHERE projection = $1

-- In the order in which steps take them, so that none waits for the other.
-- name: raise
WITH held AS (
    SELECT projection, slice FROM {schema}.diptych_checkpoints
    WHERE projection = $1 ORDER BY slice FOR UPDATE
)
UPDATE {schema}.diptych_checkpoints AS c SET revision = c.revision + 1
FROM held WHERE c.projection = held.projection AND c.slice = held.slice

-- name: forget_checkpoints
DELETE FROM {schema}.diptych_checkpoints WHERE projection = $1

-- name: forget_blocks
DELETE FROM {schema}.diptych_blocks WHERE projection = $1 AND block >= $2

-- name: put_block
INSERT INTO {schema}.diptych_blocks (projection, slice, block, count, digest)
VALUES ($1, $2, $3, $4, $5)

-- name: forget_parked
DELETE FROM {schema}.diptych_parked WHERE projection = $1 AND position > $2

-- name: forget_proof
DELETE FROM {schema}.diptych_proofs WHERE projection = $1

-- Parts of a step, as in checkpoints.sql.
-- name: put_parked
parked{n} AS (
    INSERT INTO {schema}.diptych_parked
        (projection, key, position, slice, slices, event_id, event, time, since, kind, error,
        attempts, state, actor, why, decided)
    SELECT m.projection, p.*
    FROM moved{n} AS m
    CROSS JOIN unnest({}::text[], {}::bigint[], {}::bigint[], {}::bigint[], {}::text[], {}::text[],
        {}::timestamptz[], {}::timestamptz[], {}::text[], {}::text[], {}::bigint[], {}::text[],
        {}::text[], {}::text[], {}::timestamptz[]) AS p
    ON CONFLICT (projection, key, position, slice) DO UPDATE
    SET (slices, kind, error, attempts, state, actor, why, decided) = (excluded.slices, excluded.kind,
        excluded.error, excluded.attempts, excluded.state, excluded.actor, excluded.why,
        excluded.decided)
)

-- name: unpark
unparked{n} AS (
    DELETE FROM {schema}.diptych_parked AS p
    USING moved{n} AS m
    CROSS JOIN unnest({}::text[], {}::bigint[], {}::bigint[]) AS u (key, position, slice)
    WHERE p.projection = m.projection AND p.key = u.key AND p.position = u.position
        AND p.slice = u.slice
)
