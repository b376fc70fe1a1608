-- CRLs are kept in parts, so that what a list has in common with the one before is written and read once.
BEGIN;

-- parts: how der and the rows of crl_part make up the list; NULL: der is the whole of it. base: delta CRLs build on it.
ALTER TABLE crl
    ADD COLUMN parts BYTEA,
    ADD COLUMN base  BOOLEAN NOT NULL DEFAULT false;

ALTER TABLE crl ALTER COLUMN parts SET STORAGE EXTERNAL;

CREATE TABLE crl_part (
    issuer_key_id BIGINT NOT NULL REFERENCES issuer_key (id),
    scope         TEXT NOT NULL,
    hash          BYTEA NOT NULL, -- SHA-256 of data
    data          BYTEA NOT NULL,
    PRIMARY KEY (issuer_key_id, scope, hash)
);

ALTER TABLE crl_part ALTER COLUMN data SET STORAGE EXTERNAL;

INSERT INTO schema_step (version) VALUES (7);

COMMIT;
