BEGIN;

DROP TABLE idempotency;
DELETE FROM schema_step WHERE version = 3;

COMMIT;
