BEGIN;
ALTER TABLE device DROP COLUMN revoke_profile;
DELETE FROM schema_step WHERE version = 10;
COMMIT;
