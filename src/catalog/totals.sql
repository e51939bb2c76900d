-- Counts the totals anew, and makes the triggers that keep them from then on.

DELETE FROM state_totals;
INSERT INTO state_totals (team_id, state, attachments, archived_bytes, changed_at)
    SELECT team_id, state, attachments, archived_bytes, changed_at FROM counted_states;
DELETE FROM message_totals;
INSERT INTO message_totals (team_id, messages) SELECT team_id, messages FROM counted_messages;
DELETE FROM content_totals;
INSERT INTO content_totals (archive_id, contents, bytes) SELECT archive_id, contents, bytes FROM counted_contents;

CREATE TRIGGER IF NOT EXISTS attachments_added AFTER INSERT ON attachments BEGIN
    INSERT INTO state_totals (team_id, state, attachments, archived_bytes, changed_at)
    VALUES (new.team_id, new.state, 1, CASE new.state WHEN 'archived' THEN coalesce(new.size_bytes, 0) ELSE 0 END,
        new.updated_at)
    ON CONFLICT (team_id, state) DO UPDATE SET attachments = attachments + 1,
        archived_bytes = archived_bytes + excluded.archived_bytes, changed_at = max(changed_at, excluded.changed_at);
    INSERT INTO content_totals (archive_id, contents, bytes)
    SELECT t.archive_id, 1, coalesce(new.size_bytes, 0) FROM teams t
    WHERE t.id = new.team_id AND new.state = 'archived' AND new.sha256 IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM attachments o JOIN teams u ON u.id = o.team_id
            WHERE o.sha256 = new.sha256 AND o.state = 'archived' AND o.id <> new.id AND u.archive_id = t.archive_id)
    ON CONFLICT (archive_id) DO UPDATE SET contents = contents + 1, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER IF NOT EXISTS attachments_removed AFTER DELETE ON attachments BEGIN
    UPDATE state_totals SET attachments = attachments - 1,
        archived_bytes = archived_bytes - CASE old.state WHEN 'archived' THEN coalesce(old.size_bytes, 0) ELSE 0 END
    WHERE team_id = old.team_id AND state = old.state;
    UPDATE content_totals SET contents = contents - 1, bytes = bytes - coalesce(old.size_bytes, 0)
    WHERE old.state = 'archived' AND old.sha256 IS NOT NULL
        AND archive_id = (SELECT archive_id FROM teams WHERE id = old.team_id)
        AND NOT EXISTS (SELECT 1 FROM attachments o JOIN teams u ON u.id = o.team_id
            WHERE o.sha256 = old.sha256 AND o.state = 'archived' AND o.id <> old.id
                AND u.archive_id = content_totals.archive_id);
END;

-- A claim or the end of a lease alone changes none of these columns, and so fires nothing.
CREATE TRIGGER IF NOT EXISTS attachments_changed
AFTER UPDATE OF team_id, state, sha256, size_bytes, updated_at ON attachments BEGIN
    UPDATE state_totals SET attachments = attachments - 1,
        archived_bytes = archived_bytes - CASE old.state WHEN 'archived' THEN coalesce(old.size_bytes, 0) ELSE 0 END
    WHERE team_id = old.team_id AND state = old.state;
    INSERT INTO state_totals (team_id, state, attachments, archived_bytes, changed_at)
    VALUES (new.team_id, new.state, 1, CASE new.state WHEN 'archived' THEN coalesce(new.size_bytes, 0) ELSE 0 END,
        new.updated_at)
    ON CONFLICT (team_id, state) DO UPDATE SET attachments = attachments + 1,
        archived_bytes = archived_bytes + excluded.archived_bytes, changed_at = max(changed_at, excluded.changed_at);
    UPDATE content_totals SET contents = contents - 1, bytes = bytes - coalesce(old.size_bytes, 0)
    WHERE old.state = 'archived' AND old.sha256 IS NOT NULL
        AND (new.state <> 'archived' OR new.sha256 IS NOT old.sha256)
        AND archive_id = (SELECT archive_id FROM teams WHERE id = old.team_id)
        AND NOT EXISTS (SELECT 1 FROM attachments o JOIN teams u ON u.id = o.team_id
            WHERE o.sha256 = old.sha256 AND o.state = 'archived' AND o.id <> old.id
                AND u.archive_id = content_totals.archive_id);
    INSERT INTO content_totals (archive_id, contents, bytes)
    SELECT t.archive_id, 1, coalesce(new.size_bytes, 0) FROM teams t
    WHERE t.id = new.team_id AND new.state = 'archived' AND new.sha256 IS NOT NULL
        AND (old.state <> 'archived' OR old.sha256 IS NOT new.sha256)
        AND NOT EXISTS (SELECT 1 FROM attachments o JOIN teams u ON u.id = o.team_id
            WHERE o.sha256 = new.sha256 AND o.state = 'archived' AND o.id <> new.id AND u.archive_id = t.archive_id)
    ON CONFLICT (archive_id) DO UPDATE SET contents = contents + 1, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER IF NOT EXISTS messages_added AFTER INSERT ON messages BEGIN
    INSERT INTO message_totals (team_id, messages) VALUES (new.team_id, 1)
    ON CONFLICT (team_id) DO UPDATE SET messages = messages + 1;
END;

CREATE TRIGGER IF NOT EXISTS messages_removed AFTER DELETE ON messages BEGIN
    UPDATE message_totals SET messages = messages - 1 WHERE team_id = old.team_id;
END;
