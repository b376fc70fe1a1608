-- What a token's certificates may name, and how fast it may ask.
PRAGMA user_version = 8;

ALTER TABLE api_token
    ADD COLUMN names TEXT NOT NULL DEFAULT '[]'; -- rules, a JSON array; empty: what the profile allows

ALTER TABLE api_token
    ADD COLUMN rate INTEGER NOT NULL DEFAULT 0; -- requests a minute; 0: as many as the server allows
