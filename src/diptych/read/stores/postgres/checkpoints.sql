-- name: start
INSERT INTO {schema}.diptych_checkpoints
    (projection, slice, slices, log, position, event_id, count, digest, tallies)
SELECT name, 0, slices, $3, 0, '', 0, repeat('0', 32), decode(repeat('00', 24 * slices::int), 'hex')
FROM unnest($1::text[], $2::bigint[]) AS new (name, slices)
WHERE NOT EXISTS (SELECT FROM {schema}.diptych_checkpoints AS c WHERE c.projection = new.name)

-- What is left of one that is no more would pass for what this one has applied.
-- name: start_forgets_blocks
DELETE FROM {schema}.diptych_blocks WHERE projection = ANY ($1::text[])

-- name: start_forgets_parked
DELETE FROM {schema}.diptych_parked WHERE projection = ANY ($1::text[])

-- name: start_forgets_proofs
DELETE FROM {schema}.diptych_proofs WHERE projection = ANY ($1::text[])

-- name: insert
INSERT INTO {schema}.diptych_checkpoints
    (projection, slice, slices, log, position, event_id, count, digest, time, tallies, revision)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)

-- name: delete
DELETE FROM {schema}.diptych_checkpoints WHERE projection = $1 AND slice = $2

-- name: read
SELECT projection, slice, slices, log, position, event_id, count, digest, time, tallies, revision
FROM {schema}.diptych_checkpoints ORDER BY projection, slice

-- One cutter at a time. In a statement of its own: what waits for rows that somebody deletes does
-- not see those inserted in their place.
-- name: lock_cuts
SELECT pg_advisory_xact_lock(hashtextextended($1, $2))

-- For who moves or cuts them within a longer transaction: until then nobody else does.
-- name: hold
SELECT projection, slice, slices, log, position, event_id, count, digest, time, tallies, revision
FROM {schema}.diptych_checkpoints WHERE projection = $1 ORDER BY slice FOR UPDATE

-- name: positions
SELECT coalesce(json_object_agg(projection, position)::text, '{}') AS positions
FROM (SELECT projection, min(position) AS position
      FROM {schema}.diptych_checkpoints GROUP BY projection
      UNION ALL SELECT '', coalesce(max(turn), 0) FROM {schema}.diptych_versions) AS p

-- name: proof
SELECT
    (SELECT coalesce(json_agg(json_build_array(
        projection, slice, slices, log, position, event_id, count, digest, time,
        encode(tallies, 'hex'), revision) ORDER BY slice)::text, '[]')
     FROM {schema}.diptych_checkpoints WHERE projection = $1),
    (SELECT coalesce(json_agg(json_build_array(b.block, b.count, b.digest))::text, '[]')
     FROM {schema}.diptych_blocks AS b WHERE b.projection = $1)

-- name: block
SELECT count, digest FROM {schema}.diptych_blocks
WHERE projection = $1 AND slice = $2 AND block = $3

-- name: prove
INSERT INTO {schema}.diptych_proofs AS p
    (projection, log, time, ok, position, count, reason, reach, tallies, unknown)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (projection) DO UPDATE
SET (log, time, ok, position, count, reason, reach, tallies, unknown) = (excluded.log,
    excluded.time, excluded.ok, excluded.position, excluded.count, excluded.reason,
    excluded.reach, excluded.tallies, excluded.unknown)

-- name: proofs
SELECT projection, log, time, ok, position, count, reason, reach, tallies, unknown
FROM {schema}.diptych_proofs

-- name: beat
INSERT INTO {schema}.diptych_workers (worker, host, pid, projections, bulk, seen)
VALUES ($1, $2, $3, $4, $5, clock_timestamp())
ON CONFLICT (worker) DO UPDATE
SET (projections, bulk, seen) = (excluded.projections, excluded.bulk, excluded.seen)

-- name: workers
SELECT worker, host, pid, projections, bulk, seen,
    extract(epoch FROM clock_timestamp() - seen)::float8 AS age
FROM {schema}.diptych_workers ORDER BY worker

-- name: leave
DELETE FROM {schema}.diptych_workers WHERE worker = $1

-- The parts of a step, each the one after the other's WITH; {n} tells the steps of a transaction
-- apart. Nothing is written unless the checkpoint stands where the writer believes it.
-- name: move
moved{n} AS (
    UPDATE {schema}.diptych_checkpoints
    SET position = {}, event_id = {}, count = {}, digest = {}, time = {}, tallies = {},
        revision = {}
    WHERE projection = {} AND slice = {} AND slices = {} AND log = {} AND position = {}
        AND count = {} AND digest = {} AND revision = {}
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
