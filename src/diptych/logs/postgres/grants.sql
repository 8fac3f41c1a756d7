-- What the application's role may do: read and append, nothing else.
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT, INSERT ON {schema}.events, {schema}.event_tags, {schema}.idempotency_keys TO {role};
GRANT SELECT, UPDATE (head) ON {schema}.log TO {role};
GRANT SELECT ON {schema}.events_readable, {schema}.diptych_migrations TO {role};
GRANT EXECUTE ON FUNCTION {schema}.append, {schema}.readable TO {role};
