-- name: tables
SELECT name FROM sqlite_master WHERE type = 'table'

-- name: start
INSERT INTO diptych_checkpoints
    (projection, slice, slices, log, position, event_id, count, digest, tallies)
SELECT :projection, 0, :slices, :log, 0, '', 0, '00000000000000000000000000000000',
    zeroblob(24 * :slices)
WHERE NOT EXISTS (SELECT 1 FROM diptych_checkpoints WHERE projection = :projection)

-- What is left of one that is no more would pass for what this one has applied.
-- name: start_forgets_blocks
DELETE FROM diptych_blocks WHERE projection = ?

-- name: start_forgets_parked
DELETE FROM diptych_parked WHERE projection = ?

-- name: start_forgets_proofs
DELETE FROM diptych_proofs WHERE projection = ?

-- name: insert
INSERT INTO diptych_checkpoints
    (projection, slice, slices, log, position, event_id, count, digest, time, tallies, revision)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: delete
DELETE FROM diptych_checkpoints WHERE projection = ? AND slice = ?

-- name: read
SELECT projection, slice, slices, log, position, event_id, count, digest, time, tallies, revision
FROM diptych_checkpoints ORDER BY projection, slice

-- name: read_one
SELECT projection, slice, slices, log, position, event_id, count, digest, time, tallies, revision
FROM diptych_checkpoints WHERE projection = ? ORDER BY slice

-- name: move
UPDATE diptych_checkpoints
SET position = ?, event_id = ?, count = ?, digest = ?, time = ?, tallies = ?,
    revision = ?
WHERE projection = ? AND slice = ? AND slices = ? AND log = ? AND position = ? AND count = ?
    AND digest = ? AND revision = ?

-- name: positions
SELECT json_group_object(projection, position)
FROM (SELECT projection, CAST(min(position) AS INTEGER) AS position
      FROM diptych_checkpoints GROUP BY projection
      UNION ALL SELECT '', coalesce(max(turn), 0) FROM diptych_versions)

-- name: proof
SELECT
    (SELECT json_group_array(json_array(
        projection, slice, slices, log, position, event_id, count,
        iif(typeof(digest) = 'text', digest, ''), time, hex(tallies), revision
    )) FROM (SELECT * FROM diptych_checkpoints WHERE projection = :projection ORDER BY slice)),
    (SELECT json_group_array(json_array(
        block, count, iif(typeof(digest) = 'text', digest, '')
    )) FROM diptych_blocks
     WHERE projection = :projection)

-- name: block
SELECT count, digest FROM diptych_blocks WHERE projection = ? AND slice = ? AND block = ?

-- name: put_block
INSERT INTO diptych_blocks (projection, slice, block, count, digest) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET count = excluded.count, digest = excluded.digest

-- name: beat
INSERT INTO diptych_workers (worker, host, pid, projections, bulk, seen) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE
SET projections = excluded.projections, bulk = excluded.bulk, seen = excluded.seen

-- name: workers
SELECT json_group_array(
    json_array(json_array(worker, host, pid, json(projections), json(bulk)), seen, ? - seen)
)
FROM (SELECT * FROM diptych_workers ORDER BY worker)

-- name: leave
DELETE FROM diptych_workers WHERE worker = ?

-- name: prove
INSERT OR REPLACE INTO diptych_proofs
    (projection, log, time, ok, position, count, reason, reach, tallies, unknown)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: proofs
SELECT projection, log, time, ok, position, count, reason, reach, tallies, unknown
FROM diptych_proofs
