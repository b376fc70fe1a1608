-- What a token's certificates may name, and how fast it may ask.
BEGIN;

ALTER TABLE api_token
    ADD COLUMN names TEXT[] NOT NULL DEFAULT '{}', -- rules; empty: what the profile allows
    ADD COLUMN rate  INTEGER NOT NULL DEFAULT 0;   -- requests a minute; 0: as many as the server allows

INSERT INTO schema_step (version) VALUES (8);

COMMIT;
