-- What the application's role may do with views: everything but change their tables.
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE
ON {schema}.diptych_checkpoints, {schema}.diptych_blocks, {schema}.diptych_workers,
    {schema}.diptych_proofs, {schema}.diptych_parked, {schema}.diptych_pauses,
    {schema}.diptych_versions{views}
TO {role};
