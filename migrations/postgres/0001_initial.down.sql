-- Takes everything away. The extension stays: others may use it.
BEGIN;

DROP TABLE lease;
DROP TABLE crl;
DROP TABLE status_event;
DROP TABLE revocation;
DROP TABLE certificate;
DROP TABLE api_token;
DROP TABLE profile;
DROP TABLE blocked_key;
DROP TABLE kek;
DROP TABLE sealed_key;
DROP TABLE issuer_certificate;
DROP TABLE issuer_key;
DROP TABLE issuer;
DROP TABLE audit_record;
DROP TABLE audit_batch;
DROP TABLE head;
DROP TABLE schema_step;

COMMIT;
