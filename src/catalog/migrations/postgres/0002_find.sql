-- What `find` needs: an index that is filled behind the ingest (see catalog::find). Everything in it comes from messages, links
-- and attachments, and can be thrown away. Names and senders are sorted by their bytes, whatever the database's language.

-- One row for each attachment of each distinct message; the newest line of a message counts.
CREATE TABLE find_entries (
    -- The second in which the message was sent, times 2^30, plus a number: sorts by date.
    id BIGINT PRIMARY KEY,
    attachment_row BIGINT NOT NULL,
    message_row BIGINT NOT NULL,
    place BIGINT NOT NULL,
    -- In lower case, without control characters.
    name TEXT COLLATE "C" NOT NULL,
    sender TEXT COLLATE "C" NOT NULL,
    content_type TEXT COLLATE "C" NOT NULL,
    sniffed_type TEXT COLLATE "C",
    -- -1 if unknown.
    size_bytes BIGINT NOT NULL,
    conversation_id TEXT,
    -- Whether the attachment has entries of other messages too.
    shared BIGINT NOT NULL DEFAULT 0,
    -- 0 while size and sniffed type may still change.
    settled BIGINT NOT NULL
);
CREATE INDEX find_entries_attachment ON find_entries (attachment_row);
-- An index takes no more than 2,704 bytes of a row: names that begin with the same 600 characters are sorted by date.
CREATE INDEX find_entries_name ON find_entries (left(name, 600), id);
CREATE INDEX find_entries_sender ON find_entries (left(sender, 600), id);
CREATE INDEX find_entries_size ON find_entries (size_bytes, id);
CREATE INDEX find_entries_conversation ON find_entries USING hash (conversation_id) WHERE conversation_id IS NOT NULL;
CREATE INDEX find_entries_unsettled ON find_entries (attachment_row) WHERE settled = 0;

-- The words of each entry, under its id: those of the name begin with n, those of the subject with s, those of its people with
-- p. The tokens have them in their order, each between spaces, so that phrases can be told.
CREATE TABLE find_text (
    id BIGINT PRIMARY KEY,
    tokens TEXT COLLATE "C" NOT NULL,
    words TSVECTOR NOT NULL
);
CREATE INDEX find_text_words ON find_text USING gin (words);

-- How far the index reaches: the last message, and the highest number given out.
CREATE TABLE find_progress (
    singleton BIGINT PRIMARY KEY CHECK (singleton = 1),
    message_row BIGINT NOT NULL,
    entries BIGINT NOT NULL
);
INSERT INTO find_progress (singleton, message_row, entries) VALUES (1, 0, 0);

-- The last message below which none can come any more: a row has its number before it is committed, and others with higher ones
-- may be committed before it. Who takes a number holds the sequence's lock until the end of its transaction. Waits up to a second
-- for those who do at this moment; NULL if that is not enough.
CREATE FUNCTION last_settled_message() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    numbers regclass := pg_get_serial_sequence('messages', 'id')::regclass;
    newest bigint := (SELECT max(id) FROM messages);
    writers text[] := ARRAY(SELECT virtualtransaction FROM pg_locks
        WHERE relation = numbers AND mode = 'RowExclusiveLock' AND pid <> pg_backend_pid()
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database()));
BEGIN
    FOR attempt IN 1..100 LOOP
        IF NOT EXISTS (SELECT FROM pg_locks
                WHERE relation = numbers AND mode = 'RowExclusiveLock' AND virtualtransaction = ANY (writers)) THEN
            RETURN newest;
        END IF;
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN NULL;
END $$;

-- The addresses that a message went to. SQLite leaves out NUL characters, which PostgreSQL refuses.
CREATE FUNCTION receivers(people text) RETURNS TABLE (value text) LANGUAGE sql IMMUTABLE ROWS 2 AS $$
    SELECT p.value
    FROM (SELECT regexp_replace(people, '(?<!\\)((?:\\\\)*)\\u0000', '\1', 'g')::jsonb AS everyone) e
    CROSS JOIN LATERAL (VALUES ('to'), ('cc')) k (key)
    CROSS JOIN LATERAL jsonb_array_elements_text(coalesce(everyone -> k.key, '[]')) p (value)
$$;
