-- The log's tables. {schema} is the schema of the user's choice.

-- The one row of the log. Positions come from its head: a sequence would leave holes and hand out
-- numbers out of commit order.
CREATE TABLE {schema}.log (
    one      smallint PRIMARY KEY CHECK (one = 1),
    identity text NOT NULL,
    head     bigint NOT NULL,
    created  timestamptz NOT NULL DEFAULT now()
);
INSERT INTO {schema}.log (one, identity, head) VALUES (1, gen_random_uuid()::text, 0);

-- tags is a JSON array of strings; data and metadata are JSON, byte for byte as appended.
CREATE TABLE {schema}.events (
    position bigint PRIMARY KEY,
    id       text COLLATE "C" NOT NULL,
    type     text COLLATE "C" NOT NULL,
    tags     text COLLATE "C" NOT NULL,
    data     bytea NOT NULL,
    metadata bytea NOT NULL
);
CREATE INDEX events_by_type ON {schema}.events (type, position);

-- One row for each tag of an event: what boundaries are read and conditions checked by.
CREATE TABLE {schema}.event_tags (
    tag      text COLLATE "C" NOT NULL,
    type     text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (tag, type, position)
);

-- The first answer to each key. content is a digest of the request; rejection is JSON.
CREATE TABLE {schema}.idempotency_keys (
    key       text COLLATE "C" PRIMARY KEY,
    content   bytea NOT NULL,
    first     bigint NOT NULL,
    last      bigint NOT NULL,
    rejection bytea
);
