-- How far the slices of each projection are, and the proof of what they have applied. A row is a
-- span: `slices` neighbours from `slice` on that stand level. count and digest (128 bits in hex) are
-- the sums of those of each slice, in tallies: 24 bytes each. time: that of the event there.
-- revision: see diptych_parked and diptych_pauses, whose every change raises it.
-- name: diptych_checkpoints
CREATE TABLE {schema}.diptych_checkpoints (
    projection text COLLATE "C" NOT NULL,
    slice bigint NOT NULL,
    slices bigint NOT NULL,
    log text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    count bigint NOT NULL,
    digest text COLLATE "C" NOT NULL,
    time timestamp with time zone,
    tallies bytea NOT NULL,
    revision bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (projection, slice)
) WITH (fillfactor = 50);
-- (PostgreSQL 15 takes no STORAGE in CREATE TABLE.)
ALTER TABLE {schema}.diptych_checkpoints ALTER COLUMN tallies SET STORAGE PLAIN

-- The same proof for each block of 1024 positions, so that verify can tell where a fault lies.
-- slice: the first of the span that wrote it. A block's tally is the sum over its rows.
-- name: diptych_blocks
CREATE TABLE {schema}.diptych_blocks (
    projection text COLLATE "C" NOT NULL,
    slice bigint NOT NULL,
    block bigint NOT NULL,
    count bigint NOT NULL,
    digest text COLLATE "C" NOT NULL,
    PRIMARY KEY (projection, slice, block)
)

-- The processes that project, and when each was last seen. bulk: the projections that are far behind.
-- name: diptych_workers
CREATE TABLE {schema}.diptych_workers (
    worker text COLLATE "C" NOT NULL,
    host text COLLATE "C" NOT NULL,
    pid bigint NOT NULL,
    projections text[] NOT NULL,
    bulk text[] NOT NULL,
    seen timestamp with time zone NOT NULL,
    PRIMARY KEY (worker)
) WITH (fillfactor = 50)

-- What verify found last. reach: the position of each slice.
-- name: diptych_proofs
CREATE TABLE {schema}.diptych_proofs (
    projection text COLLATE "C" NOT NULL,
    log text COLLATE "C" NOT NULL,
    time timestamp with time zone NOT NULL,
    ok boolean NOT NULL,
    position bigint NOT NULL,
    count bigint NOT NULL,
    reason text NOT NULL,
    reach bigint[] NOT NULL,
    tallies bytea NOT NULL,
    unknown text NOT NULL,
    PRIMARY KEY (projection)
)

-- The versions of projections: under which name each is kept (`instance`), in which tables (JSON, by
-- the plain ones), and what it is made of (JSON). turn: the last change of a state, counted over all.
-- name: diptych_versions
CREATE TABLE {schema}.diptych_versions (
    projection text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    instance text COLLATE "C" NOT NULL UNIQUE,
    tables text NOT NULL,
    state text COLLATE "C" NOT NULL,
    parts text NOT NULL,
    since timestamp with time zone NOT NULL,
    turn bigint NOT NULL,
    PRIMARY KEY (projection, version),
    EXCLUDE (projection WITH =) WHERE (state = 'live')
)

-- Effects that were not applied. key: canonical JSON; '' where an event has none: then as many slices
-- as said have passed it over.
-- name: diptych_parked
CREATE TABLE {schema}.diptych_parked (
    projection text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    slice bigint NOT NULL,
    slices bigint NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    event text COLLATE "C" NOT NULL,
    time timestamp with time zone NOT NULL,
    since timestamp with time zone NOT NULL,
    kind text NOT NULL,
    error text NOT NULL,
    attempts bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    actor text NOT NULL,
    why text NOT NULL,
    decided timestamp with time zone,
    PRIMARY KEY (projection, key, position, slice)
)

-- Projections that are not to go on.
-- name: diptych_pauses
CREATE TABLE {schema}.diptych_pauses (
    projection text COLLATE "C" NOT NULL,
    since timestamp with time zone NOT NULL,
    actor text NOT NULL,
    why text NOT NULL,
    PRIMARY KEY (projection)
)
