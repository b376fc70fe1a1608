-- Remembers for a day which request made which certificate, so that the same request again gets the same answer.
BEGIN;

CREATE TABLE idempotency (
    id          BYTEA PRIMARY KEY,    -- SHA-256 of who asked, and of his Idempotency-Key
    request     BYTEA NOT NULL,       -- SHA-256 of what he asked for
    fingerprint BYTEA NOT NULL,       -- of the certificate that he got
    warnings    TEXT[] NOT NULL,      -- that came with it
    expires_at  TIMESTAMPTZ NOT NULL
);

CREATE INDEX idempotency_expires ON idempotency (expires_at);

INSERT INTO schema_step (version) VALUES (3);

COMMIT;
