-- Devices that had certificates or challenges before there was a registry are registered; lists of devices are in the
-- order of octets; a device's revocation may be of one profile.
BEGIN;

ALTER TABLE device ALTER COLUMN id TYPE TEXT COLLATE "C";

-- With revoke_until: only certificates of this profile; empty: of every one.
ALTER TABLE device ADD COLUMN revoke_profile TEXT NOT NULL DEFAULT '';

INSERT INTO device (id, version, status, group_name, owner, labels, subject, sans, note, reason, created_at, created_by, changed_at, changed_by,
	first_seen_at, last_seen_at, last_source, last_point, protocol, certificate, issuer_key_id, serial, not_after,
	failures, renewal_failures, failure, returns, revoke_reason, search_text)
SELECT DISTINCT ON (c.device) c.device, 1, 2, '', '', '{}', '', '{}', '', '', c.issued_at, c.requester, c.issued_at, c.requester,
	min(c.issued_at) OVER (PARTITION BY c.device), c.issued_at, c.source, '', '{}', c.fingerprint, c.issuer_key_id, c.serial, c.not_after,
	0, 0, '', 0, 0, lower(c.device)
FROM certificate c
WHERE c.device <> ''
ORDER BY c.device, c.issued_at DESC, c.serial DESC
ON CONFLICT (id) DO NOTHING;

INSERT INTO device (id, version, status, group_name, owner, labels, subject, sans, note, reason, created_at, created_by, changed_at, changed_by,
	last_source, last_point, protocol, failures, renewal_failures, failure, returns, revoke_reason, search_text)
SELECT DISTINCT ON (h.device) h.device, 1, 1, '', '', '{}', '', '{}', '', '', h.created_at, h.created_by, h.created_at, h.created_by,
	'', '', '{}', 0, 0, '', 0, 0, lower(h.device)
FROM challenge h
WHERE h.device <> ''
ORDER BY h.device, h.created_at
ON CONFLICT (id) DO NOTHING;

INSERT INTO schema_step (version) VALUES (10);

COMMIT;
