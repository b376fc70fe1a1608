BEGIN;

ALTER TABLE api_token DROP COLUMN names, DROP COLUMN rate;
DELETE FROM schema_step WHERE version = 8;

COMMIT;
