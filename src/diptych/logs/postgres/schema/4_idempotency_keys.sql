-- The first answer to each key. content is a digest of the request; rejection is JSON.
CREATE TABLE IF NOT EXISTS {schema}.idempotency_keys (
    key       text COLLATE "C" PRIMARY KEY,
    content   bytea NOT NULL,
    first     bigint NOT NULL,
    last      bigint NOT NULL,
    rejection bytea
);
