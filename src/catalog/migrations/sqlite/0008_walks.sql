-- Walks over what Jelly lists: backfills, and each team's gap sweep.

CREATE TABLE walks (
    id INTEGER PRIMARY KEY,
    team_id INTEGER NOT NULL REFERENCES teams (id),
    kind TEXT NOT NULL,
    -- With team and kind, which walk it is.
    filters TEXT NOT NULL,
    phase TEXT NOT NULL,
    -- What is asked for: nothing for now, the listing alone, or all of it.
    wish TEXT NOT NULL,
    -- Where the listing is, and what was counted: JSON of the module that walks.
    state TEXT NOT NULL,
    counts TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (team_id, kind, filters)
);

-- What a walk has met. The fingerprint is that of the last time; the pass tells what came twice.
CREATE TABLE walk_entries (
    walk_id INTEGER NOT NULL REFERENCES walks (id),
    key BLOB NOT NULL,
    pass INTEGER NOT NULL,
    fingerprint INTEGER NOT NULL,
    -- How often its messages could not be read.
    failures INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (walk_id, key)
) WITHOUT ROWID;

-- Conversations that have, or may have, attachments. `seen` is the fingerprint that a listing showed last, `done` the
-- one that was shown before its messages were read to their end.
CREATE TABLE conversations (
    id INTEGER PRIMARY KEY,
    team_id INTEGER NOT NULL REFERENCES teams (id),
    key BLOB NOT NULL,
    -- Id, subject, labels and mailboxes as JSON.
    fields TEXT NOT NULL,
    seen INTEGER NOT NULL,
    done INTEGER,
    messages_count INTEGER,
    attachments_count INTEGER,
    -- A reading that has begun: the fingerprint that it will set, and where it goes on.
    reading INTEGER,
    next_cursor TEXT,
    -- Where the last reading found its last page, and how many messages there were: one that only grew is gone on with.
    last_cursor TEXT,
    done_messages_count INTEGER,
    UNIQUE (team_id, key)
);
CREATE INDEX conversations_unread ON conversations (team_id, id) WHERE done IS NOT seen;

-- What was read and is not yet ingested.
CREATE TABLE walk_pages (
    id INTEGER PRIMARY KEY,
    walk_id INTEGER NOT NULL REFERENCES walks (id),
    content TEXT NOT NULL
);

-- The attachments that a walk has met, each with whether it was archived before.
CREATE TABLE walk_attachments (
    walk_id INTEGER NOT NULL REFERENCES walks (id),
    attachment_row INTEGER NOT NULL,
    known INTEGER NOT NULL,
    PRIMARY KEY (walk_id, attachment_row)
) WITHOUT ROWID;
