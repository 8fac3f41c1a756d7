-- How far the slices of each projection are, and the proof of what they have applied. A row is a
-- span: `slices` neighbours from `slice` on that stand level. count and digest (128 bits in hex) are
-- the sums of those of each slice, in tallies: 24 bytes each. time: that of the event there.
CREATE TABLE IF NOT EXISTS diptych_checkpoints (
    projection TEXT NOT NULL,
    slice INTEGER NOT NULL,
    slices INTEGER NOT NULL,
    log TEXT NOT NULL,
    position INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    count INTEGER NOT NULL,
    digest TEXT NOT NULL,
    time TEXT,
    tallies BLOB NOT NULL,
    PRIMARY KEY (projection, slice)
) WITHOUT ROWID;

-- The same proof for each block of 1024 positions, so that verify can tell where a fault lies.
-- slice: the first of the span that wrote it. A block's tally is the sum over its rows.
CREATE TABLE IF NOT EXISTS diptych_blocks (
    projection TEXT NOT NULL,
    slice INTEGER NOT NULL,
    block INTEGER NOT NULL,
    count INTEGER NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (projection, slice, block)
) WITHOUT ROWID;

-- The processes that project, and when each was last seen (seconds since 1970).
CREATE TABLE IF NOT EXISTS diptych_workers (
    worker TEXT NOT NULL PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    projections TEXT NOT NULL,
    seen REAL NOT NULL
) WITHOUT ROWID;

-- What verify found last. reach: the position of each slice. time: ISO 8601, UTC.
CREATE TABLE IF NOT EXISTS diptych_proofs (
    projection TEXT NOT NULL PRIMARY KEY,
    log TEXT NOT NULL,
    time TEXT NOT NULL,
    ok INTEGER NOT NULL,
    position INTEGER NOT NULL,
    count INTEGER NOT NULL,
    reason TEXT NOT NULL,
    reach TEXT NOT NULL,
    tallies BLOB NOT NULL
) WITHOUT ROWID;
