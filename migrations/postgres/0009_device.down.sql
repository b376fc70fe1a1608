BEGIN;

DROP TABLE refusal, notification, device;
ALTER TABLE enrollment DROP COLUMN overrides;
ALTER TABLE challenge DROP COLUMN batch;
DELETE FROM schema_step WHERE version = 9;

COMMIT;
