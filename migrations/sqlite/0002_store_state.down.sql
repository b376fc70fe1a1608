DROP TABLE store_state;
ALTER TABLE head DROP COLUMN closed_at;
PRAGMA user_version = 1;
