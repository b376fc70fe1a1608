-- Remembers for a day which request made which certificate, so that the same request again gets the same answer.
PRAGMA user_version = 3;

CREATE TABLE idempotency (
    id          BLOB PRIMARY KEY, -- SHA-256 of who asked, and of his Idempotency-Key
    request     BLOB NOT NULL,    -- SHA-256 of what he asked for
    fingerprint BLOB NOT NULL,    -- of the certificate that he got
    warnings    TEXT NOT NULL,    -- that came with it, a JSON array
    expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_expires ON idempotency (expires_at);
