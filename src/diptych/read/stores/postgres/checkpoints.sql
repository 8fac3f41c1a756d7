-- name: start
INSERT INTO {schema}.diptych_checkpoints
    (projection, slice, log, position, event_id, count, digest)
SELECT name, 0, $2, 0, '', 0, repeat('0', 32) FROM unnest($1::text[]) AS name
ON CONFLICT DO NOTHING

-- name: read
SELECT projection, slice, log, position, event_id, count, digest, time
FROM {schema}.diptych_checkpoints

-- For an append, whose transaction moves it: until then nobody else does.
-- name: hold
SELECT projection, slice, log, position, event_id, count, digest, time
FROM {schema}.diptych_checkpoints WHERE projection = $1 AND slice = 0 FOR UPDATE

-- name: positions
SELECT coalesce(json_object_agg(projection, position)::text, '{}') AS positions
FROM (SELECT projection, min(position) AS position
      FROM {schema}.diptych_checkpoints GROUP BY projection) AS p

-- name: proof
SELECT
    projection, slice, log, position, event_id, count, digest, time,
    (SELECT coalesce(json_agg(json_build_array(b.block, b.count, b.digest))::text, '[]')
     FROM {schema}.diptych_blocks AS b WHERE b.projection = $1 AND b.slice = 0)
FROM {schema}.diptych_checkpoints WHERE projection = $1 AND slice = 0

-- name: block
SELECT count, digest FROM {schema}.diptych_blocks
WHERE projection = $1 AND slice = 0 AND block = $2

-- The parts of a step, each the one after the other's WITH; {n} tells the steps of a transaction
-- apart. Nothing is written unless the checkpoint stands where the writer believes it.
-- name: move
moved{n} AS (
    UPDATE {schema}.diptych_checkpoints
    SET position = {}, event_id = {}, count = {}, digest = {}, time = {}
    WHERE projection = {} AND slice = {} AND log = {} AND position = {} AND count = {}
        AND digest = {}
    RETURNING projection, slice
)

-- name: put_blocks
blocks{n} AS (
    INSERT INTO {schema}.diptych_blocks (projection, slice, block, count, digest)
    SELECT m.projection, m.slice, b.block, b.count, b.digest
    FROM moved{n} AS m
    CROSS JOIN unnest({}::bigint[], {}::bigint[], {}::text[]) AS b (block, count, digest)
    ON CONFLICT (projection, slice, block)
    DO UPDATE SET count = excluded.count, digest = excluded.digest
)
