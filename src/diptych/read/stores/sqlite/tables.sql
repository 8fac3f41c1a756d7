-- How far the slices of each projection are, and the proof of what they have applied. A row is a
-- span: `slices` neighbours from `slice` on that stand level. count and digest (128 bits in hex) are
-- the sums of those of each slice, in tallies: 24 bytes each. time: that of the event there.
-- revision: see diptych_parked and diptych_pauses, whose every change raises it.
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
    revision INTEGER NOT NULL DEFAULT 0,
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

-- The processes that project, and when each was last seen (seconds since 1970). projections, and
-- bulk, those of them that are far behind: JSON.
CREATE TABLE IF NOT EXISTS diptych_workers (
    worker TEXT NOT NULL PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    projections TEXT NOT NULL,
    bulk TEXT NOT NULL,
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
    tallies BLOB NOT NULL,
    unknown TEXT NOT NULL
) WITHOUT ROWID;

-- Effects that were not applied. key: canonical JSON; '' where an event has none: then as many slices
-- as said have passed it over. Times: ISO 8601, UTC.
CREATE TABLE IF NOT EXISTS diptych_parked (
    projection TEXT NOT NULL,
    key TEXT NOT NULL,
    position INTEGER NOT NULL,
    slice INTEGER NOT NULL,
    slices INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    event TEXT NOT NULL,
    time TEXT NOT NULL,
    since TEXT NOT NULL,
    kind TEXT NOT NULL,
    error TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    state TEXT NOT NULL,
    actor TEXT NOT NULL,
    why TEXT NOT NULL,
    decided TEXT,
    PRIMARY KEY (projection, key, position, slice)
) WITHOUT ROWID;

-- Projections that are not to go on. since: ISO 8601, UTC.
CREATE TABLE IF NOT EXISTS diptych_pauses (
    projection TEXT NOT NULL PRIMARY KEY,
    since TEXT NOT NULL,
    actor TEXT NOT NULL,
    why TEXT NOT NULL
) WITHOUT ROWID;

-- The versions of projections: under which name each is kept (`instance`), in which tables (JSON, by
-- the plain ones), and what it is made of (JSON). turn: the last change of a state, counted over all.
CREATE TABLE IF NOT EXISTS diptych_versions (
    projection TEXT NOT NULL,
    version TEXT NOT NULL,
    instance TEXT NOT NULL UNIQUE,
    tables TEXT NOT NULL,
    state TEXT NOT NULL,
    parts TEXT NOT NULL,
    since TEXT NOT NULL,
    turn INTEGER NOT NULL,
    PRIMARY KEY (projection, version)
) WITHOUT ROWID;

CREATE UNIQUE INDEX IF NOT EXISTS diptych_versions_live
ON diptych_versions (projection) WHERE state = 'live'
