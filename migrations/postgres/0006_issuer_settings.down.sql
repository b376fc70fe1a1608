BEGIN;

DROP INDEX revocation_scope;
ALTER TABLE status_event DROP COLUMN crl_scope;
ALTER TABLE revocation DROP COLUMN crl_scope;
UPDATE certificate SET crl_scope = 'full' WHERE crl_scope = 'ca';
DROP TABLE crl_address;
DROP TABLE issuer_settings;
DELETE FROM schema_step WHERE version = 6;

COMMIT;
