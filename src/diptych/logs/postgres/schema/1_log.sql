-- The one row of the log. Positions come from its head: a sequence would leave holes and hand out
-- numbers out of commit order.
CREATE TABLE IF NOT EXISTS {schema}.log (
    one      smallint PRIMARY KEY CHECK (one = 1),
    identity text NOT NULL,
    head     bigint NOT NULL,
    created  timestamptz NOT NULL DEFAULT now()
);
INSERT INTO {schema}.log (one, identity, head) VALUES (1, gen_random_uuid()::text, 0)
ON CONFLICT DO NOTHING;
