-- Requests that were counted against quotas: of an egress group's 5-second slots (`egress:<group>`, by their start in
-- milliseconds since the Unix epoch), and of a team's UTC days (`team:<key>`, in days since the Unix epoch).
-- `quota_windows` is what versions before kept; it is taken over when a team's quota is first asked for.

CREATE TABLE quota_slots (
    scope TEXT NOT NULL,
    slot INTEGER NOT NULL,
    used INTEGER NOT NULL,
    PRIMARY KEY (scope, slot)
) WITHOUT ROWID;
