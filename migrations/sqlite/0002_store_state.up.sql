-- Lets a store be taken out of use while it is copied, and be filled by a copy.
PRAGMA user_version = 2;

-- The change at which the store was closed; NULL: it is in use. While it is set the number cannot move.
ALTER TABLE head ADD COLUMN closed_at INTEGER CHECK (closed_at IS NULL OR closed_at = change);

CREATE TABLE store_state (
    strand  INTEGER PRIMARY KEY,
    state   INTEGER NOT NULL, -- 0: in use, 1: fenced for a copy, 2: being filled by a copy, 3: copied and left
    copy_id BLOB NOT NULL,    -- of the copy that fenced it, fills it or has filled it; no octets: none
    peer    TEXT NOT NULL,    -- the other store of that copy
    since   INTEGER           -- NULL: always
) STRICT;

INSERT INTO store_state (strand, state, copy_id, peer, since) VALUES (0, 0, x'', '', NULL);
