-- Who works on this catalog. Each holds an advisory lock (730749881, id) for as long as its session lasts: so it is known
-- at once when one is gone, whatever any clock says.

CREATE TABLE members (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    archive_id BIGINT NOT NULL,
    writer_id TEXT NOT NULL,
    -- Which command, where, and of which version.
    role TEXT NOT NULL,
    host TEXT NOT NULL,
    process BIGINT NOT NULL,
    program TEXT NOT NULL,
    -- What must be the same for all: a JSON object of settings' names and fingerprints.
    settings TEXT NOT NULL,
    started_at BIGINT NOT NULL
);

CREATE VIEW members_at_work AS
    SELECT m.* FROM members m
    WHERE EXISTS (SELECT 1 FROM pg_locks l JOIN pg_database d ON d.oid = l.database
        WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 730749881 AND l.objsubid = 2 AND l.objid::bigint = m.id
            AND d.datname = current_database());

-- Whose session a lease belongs to: one that is gone gives it back at once.
ALTER TABLE attachments ADD COLUMN lease_member BIGINT;
