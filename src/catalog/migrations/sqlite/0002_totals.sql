-- Totals that are kept, so that `status` costs the same however large the archive is. Triggers keep them (totals.sql); a
-- catalog without these triggers counts anew when it is opened. The views say what the totals are.

CREATE TABLE state_totals (
    team_id INTEGER NOT NULL REFERENCES teams (id),
    state TEXT NOT NULL,
    attachments INTEGER NOT NULL,
    archived_bytes INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (team_id, state)
) WITHOUT ROWID;

CREATE TABLE message_totals (
    team_id INTEGER PRIMARY KEY REFERENCES teams (id),
    messages INTEGER NOT NULL
);

-- Distinct contents of archived attachments.
CREATE TABLE content_totals (
    archive_id INTEGER PRIMARY KEY REFERENCES archives (id),
    contents INTEGER NOT NULL,
    bytes INTEGER NOT NULL
);

CREATE VIEW counted_states (team_id, state, attachments, archived_bytes, changed_at) AS
    SELECT team_id, state, count(*), sum(CASE state WHEN 'archived' THEN coalesce(size_bytes, 0) ELSE 0 END),
        max(updated_at)
    FROM attachments GROUP BY team_id, state;

CREATE VIEW counted_messages (team_id, messages) AS
    SELECT team_id, count(*) FROM messages GROUP BY team_id;

CREATE VIEW counted_contents (archive_id, contents, bytes) AS
    SELECT archive_id, count(*), sum(size_bytes) FROM (
        SELECT t.archive_id, coalesce(max(a.size_bytes), 0) AS size_bytes FROM attachments a JOIN teams t ON t.id = a.team_id
        WHERE a.state = 'archived' AND a.sha256 IS NOT NULL GROUP BY a.sha256, t.archive_id)
    GROUP BY archive_id;

CREATE INDEX blobs_damaged ON blobs (archive_id) WHERE state = 'damaged';
