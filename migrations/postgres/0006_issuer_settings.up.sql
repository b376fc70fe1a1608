-- Settings of issuers, the addresses of CRLs that certificates carry, and which CRL speaks of a certificate that is not
-- good.
BEGIN;

-- config is kept octet by octet, as that of profiles.
CREATE TABLE issuer_settings (
    issuer_id  BIGINT NOT NULL REFERENCES issuer (id),
    version    INTEGER NOT NULL,
    config     BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (issuer_id, version)
);

-- The addresses in cRLDistributionPoints of certificates, for ever. crl_set: full, or the name of a set of shards, whose
-- url has a place for the shard's number. No certificate carries a shard's address before it is listed.
CREATE TABLE crl_address (
    issuer_key_id BIGINT NOT NULL REFERENCES issuer_key (id),
    crl_set       TEXT NOT NULL,
    url           TEXT NOT NULL,
    recorded_at   TIMESTAMPTZ NOT NULL,
    until         TIMESTAMPTZ NOT NULL, -- no certificate that carries it ends later
    listed_at     TIMESTAMPTZ,          -- NULL: not every CRL of the set names it yet
    PRIMARY KEY (issuer_key_id, crl_set, url)
);

-- The CRL of CA certificates speaks of these too. No other profiles make any.
UPDATE certificate SET crl_scope = 'ca' WHERE crl_scope = 'full' AND profile IN ('root', 'issuing', 'sub-ca');

ALTER TABLE revocation
    ADD COLUMN crl_scope TEXT NOT NULL DEFAULT 'full';

ALTER TABLE status_event
    ADD COLUMN crl_scope TEXT NOT NULL DEFAULT 'full';

UPDATE revocation r SET crl_scope = c.crl_scope
FROM certificate c
WHERE c.issuer_id = r.issuer_id AND c.bucket = r.bucket AND c.serial = r.serial AND c.crl_scope <> 'full';

UPDATE status_event e SET crl_scope = c.crl_scope
FROM certificate c
WHERE c.issuer_key_id = e.issuer_key_id AND c.serial = e.serial AND c.crl_scope <> 'full';

-- One scope's entries in the order of its CRL. The complete CRL reads the primary key.
CREATE INDEX revocation_scope ON revocation (issuer_key_id, crl_scope, serial) WHERE crl_scope <> 'full';

INSERT INTO schema_step (version) VALUES (6);

COMMIT;
