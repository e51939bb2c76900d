-- The catalog, version 1. Times are milliseconds since the Unix epoch. Everything but pauses, quota_windows and
-- rejects can be rebuilt from the archive's journal.

CREATE TABLE archives (
    id INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE,
    location TEXT NOT NULL,
    first_seen_at INTEGER NOT NULL
);

CREATE TABLE teams (
    id INTEGER PRIMARY KEY,
    archive_id INTEGER NOT NULL REFERENCES archives (id),
    archive_key TEXT NOT NULL,
    UNIQUE (archive_id, archive_key)
);

-- The highest generation that was issued or loaded.
CREATE TABLE generations (
    singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
    latest INTEGER NOT NULL
);
INSERT INTO generations (singleton, latest) VALUES (1, 0);

-- One row an attachment: its outcome, or its job while it is pending.
CREATE TABLE attachments (
    id INTEGER PRIMARY KEY,
    team_id INTEGER NOT NULL REFERENCES teams (id),
    key BLOB NOT NULL,
    attachment_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'archived', 'skipped', 'failed', 'quarantined', 'erased')),
    declared_size INTEGER,
    generation INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    not_found_count INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL DEFAULT 0,
    lease_token BLOB,
    lease_expires_at INTEGER,
    sha256 BLOB,
    size_bytes INTEGER,
    sniffed_type TEXT,
    reason TEXT,
    writer_id TEXT,
    updated_at INTEGER NOT NULL,
    UNIQUE (team_id, key)
);
CREATE INDEX attachments_due ON attachments (team_id, not_before, id) WHERE state = 'pending' AND lease_token IS NULL;
CREATE INDEX attachments_leased ON attachments (lease_expires_at) WHERE lease_token IS NOT NULL;
CREATE INDEX attachments_attention ON attachments (state, updated_at) WHERE state IN ('failed', 'quarantined');
CREATE INDEX attachments_sha256 ON attachments (sha256) WHERE sha256 IS NOT NULL;

-- One row a distinct message line of the journal.
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    team_id INTEGER NOT NULL REFERENCES teams (id),
    line_digest BLOB NOT NULL,
    message_id TEXT,
    subject TEXT,
    sender TEXT,
    sent_at TEXT,
    conversation_id TEXT,
    UNIQUE (team_id, line_digest)
);

CREATE TABLE links (
    message_row INTEGER NOT NULL REFERENCES messages (id),
    place INTEGER NOT NULL,
    attachment_row INTEGER NOT NULL REFERENCES attachments (id),
    name TEXT,
    content_type TEXT,
    declared_size INTEGER,
    inline INTEGER NOT NULL,
    PRIMARY KEY (message_row, place)
) WITHOUT ROWID;
CREATE INDEX links_attachment ON links (attachment_row);

CREATE TABLE blobs (
    archive_id INTEGER NOT NULL REFERENCES archives (id),
    sha256 BLOB NOT NULL,
    size_bytes INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('writing', 'durable', 'condemned', 'deleting', 'damaged')),
    PRIMARY KEY (archive_id, sha256)
) WITHOUT ROWID;

CREATE TABLE segments (
    archive_id INTEGER NOT NULL REFERENCES archives (id),
    key TEXT NOT NULL,
    sha256 BLOB NOT NULL,
    superseded INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (archive_id, key)
) WITHOUT ROWID;

CREATE TABLE rejects (
    id INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    line INTEGER NOT NULL,
    byte_offset INTEGER NOT NULL,
    reason TEXT NOT NULL,
    excerpt TEXT NOT NULL,
    first_seen_at INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    UNIQUE (source, line, byte_offset, reason)
);

-- scope: `team:<teams.id>` or `egress:<group>`.
CREATE TABLE pauses (
    scope TEXT PRIMARY KEY,
    until INTEGER NOT NULL,
    reason TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE quota_windows (
    scope TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    updated_at INTEGER NOT NULL
) WITHOUT ROWID;
