-- Lets a store be taken out of use while it is copied, and be filled by a copy.
BEGIN;

-- The change at which the store was closed; NULL: it is in use. While it is set the number cannot move: every transaction
-- that changes something fails at its end, also those of servers that run and have not heard of it.
ALTER TABLE head
    ADD COLUMN closed_at BIGINT,
    ADD CONSTRAINT head_closed CHECK (closed_at IS NULL OR closed_at = change);

CREATE TABLE store_state (
    strand  SMALLINT PRIMARY KEY,
    state   SMALLINT NOT NULL, -- 0: in use, 1: fenced for a copy, 2: being filled by a copy, 3: copied and left
    copy_id BYTEA NOT NULL,    -- of the copy that fenced it, fills it or has filled it; no octets: none
    peer    TEXT NOT NULL,     -- the other store of that copy
    since   TIMESTAMPTZ        -- NULL: always
);

INSERT INTO store_state (strand, state, copy_id, peer, since) VALUES (0, 0, '', '', NULL);

INSERT INTO schema_step (version) VALUES (2);

COMMIT;
