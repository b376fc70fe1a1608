-- CRLs are kept in parts, so that what a list has in common with the one before is written and read once.
PRAGMA user_version = 7;

-- How der and the rows of crl_part make up the list; NULL: der is the whole of it.
ALTER TABLE crl ADD COLUMN parts BLOB;

-- 1: delta CRLs build on it.
ALTER TABLE crl ADD COLUMN base INTEGER NOT NULL DEFAULT 0;

CREATE TABLE crl_part (
    issuer_key_id INTEGER NOT NULL REFERENCES issuer_key (id),
    scope         TEXT NOT NULL,
    hash          BLOB NOT NULL, -- SHA-256 of data
    data          BLOB NOT NULL,
    PRIMARY KEY (issuer_key_id, scope, hash)
) STRICT;
