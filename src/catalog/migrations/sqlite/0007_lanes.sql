-- Which pending attachments go first: 0 live (it came by webhook), 1 bulk. What waited so far came in no known way, and
-- counts as bulk. Each lane of a team is one stretch of the index, in the order in which it is due.

ALTER TABLE attachments ADD COLUMN lane INTEGER NOT NULL DEFAULT 1;
DROP INDEX IF EXISTS attachments_due;
CREATE INDEX attachments_due ON attachments (team_id, lane, not_before, id)
    WHERE state = 'pending' AND lease_token IS NULL;
