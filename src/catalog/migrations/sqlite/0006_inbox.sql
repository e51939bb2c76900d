-- How far each team's inbox has been taken in.

CREATE TABLE inbox_positions (
    team_id INTEGER PRIMARY KEY REFERENCES teams (id),
    segment TEXT NOT NULL,
    byte_offset INTEGER NOT NULL
);

-- Copies of inboxes in the archive (payloads/v1/…) that need not be taken in again.
CREATE TABLE payload_segments (
    archive_id INTEGER NOT NULL REFERENCES archives (id),
    key TEXT NOT NULL,
    PRIMARY KEY (archive_id, key)
) WITHOUT ROWID;
