DROP TABLE campaign;
ALTER TABLE blocked_key DROP COLUMN compromised;
ALTER TABLE blocked_key DROP COLUMN blocked_at;
ALTER TABLE blocked_key DROP COLUMN blocked_by;
ALTER TABLE blocked_key DROP COLUMN campaign;
PRAGMA user_version = 4;
