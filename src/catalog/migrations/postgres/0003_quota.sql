-- Requests that were counted against quotas: of an egress group's 5-second slots (`egress:<group>`, by their start in
-- milliseconds since the Unix epoch), and of a team's UTC days (`team:<key>`, in days since the Unix epoch).

CREATE TABLE quota_slots (
    scope TEXT NOT NULL,
    slot BIGINT NOT NULL,
    used BIGINT NOT NULL,
    PRIMARY KEY (scope, slot)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

DROP TABLE quota_windows;

-- Counts up to `wanted` requests of a team, or tells how long until one fits. One statement is a transaction: whoever asks
-- may be stopped at any moment and holds up nobody. What it does is said in catalog/quota.rs, which does the same on SQLite.
-- Synchronous, unlike other small writes could be: what was granted must still be counted after a crash of the server.
CREATE FUNCTION take_requests(
    group_scope text, team_scope text, wanted bigint, of_window bigint, of_day bigint, elsewhere bigint,
    unused_slot bigint, unused_day bigint, unused bigint, fixed_ms bigint,
    OUT granted bigint, OUT at_ms bigint, OUT slot_ms bigint, OUT today bigint,
    OUT slot_used bigint, OUT day_used bigint, OUT wait_ms bigint
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    window_used bigint;
    ahead bigint;
    room bigint;
    gone_ms bigint;
BEGIN
    -- Always in this order.
    PERFORM pg_advisory_xact_lock(hashtextextended(group_scope, 7307498803));
    PERFORM pg_advisory_xact_lock(hashtextextended(team_scope, 7307498803));
    -- The time once it is this one's turn.
    at_ms := coalesce(fixed_ms, now_ms());
    slot_ms := at_ms - mod(at_ms, 5000);
    today := at_ms / 86400000;
    IF unused > 0 THEN
        UPDATE quota_slots AS q SET used = greatest(q.used - unused, 0)
        WHERE (q.scope, q.slot) IN ((group_scope, unused_slot), (team_scope, unused_day));
    END IF;

    DELETE FROM quota_slots AS q WHERE q.scope = group_scope AND q.slot <= at_ms - 310000;
    IF EXISTS (SELECT 1 FROM quota_slots AS q WHERE q.scope = group_scope AND q.slot > slot_ms) THEN
        WITH moved AS (DELETE FROM quota_slots AS q WHERE q.scope = group_scope AND q.slot > slot_ms RETURNING q.used)
        SELECT sum(moved.used) INTO ahead FROM moved;
        INSERT INTO quota_slots AS q (scope, slot, used) VALUES (group_scope, slot_ms, ahead)
        ON CONFLICT (scope, slot) DO UPDATE SET used = q.used + excluded.used;
    END IF;
    SELECT coalesce(sum(q.used), 0) INTO window_used FROM quota_slots AS q WHERE q.scope = group_scope;

    -- A clock that was set back does not give a used day again.
    SELECT coalesce(max(q.slot), today) INTO today FROM quota_slots AS q
    WHERE q.scope = team_scope AND q.slot IN (today, today + 1);
    DELETE FROM quota_slots AS q WHERE q.scope = team_scope AND q.slot <> today;
    SELECT coalesce(max(q.used), 0) INTO day_used FROM quota_slots AS q WHERE q.scope = team_scope;

    -- No limit is null, which `least` passes over.
    room := least(of_window - elsewhere - window_used, of_day - day_used, wanted * 16);
    granted := CASE WHEN room > 0 THEN least(wanted, greatest(room / 16, 1)) ELSE 0 END;
    wait_ms := 0;
    IF room <= 0 AND wanted > 0 THEN
        IF of_day <= day_used THEN
            wait_ms := (today + 1) * 86400000 - at_ms;
        END IF;
        IF of_window - elsewhere <= window_used THEN
            SELECT min(sums.slot) + 310000 - at_ms INTO gone_ms
            FROM (
                SELECT q.slot, sum(q.used) OVER (ORDER BY q.slot) AS gone FROM quota_slots AS q
                WHERE q.scope = group_scope
            ) AS sums
            WHERE sums.gone >= window_used + elsewhere + 1 - of_window;
            wait_ms := greatest(wait_ms, gone_ms, CASE WHEN gone_ms IS NULL THEN
                CASE WHEN elsewhere > 0 THEN 5000 ELSE 305000 END END);
        END IF;
    END IF;
    IF granted > 0 THEN
        INSERT INTO quota_slots AS q (scope, slot, used)
        VALUES (group_scope, slot_ms, granted), (team_scope, today, granted)
        ON CONFLICT (scope, slot) DO UPDATE SET used = q.used + excluded.used;
    END IF;
    day_used := day_used + granted;
    SELECT coalesce(max(q.used), 0) INTO slot_used FROM quota_slots AS q
    WHERE q.scope = group_scope AND q.slot = slot_ms;
END $$;
