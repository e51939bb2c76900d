-- What `find` needs. The messages' people, and an index that is filled behind the ingest (see catalog::find): everything
-- in it comes from messages, links and attachments, and can be thrown away.

-- {"from": […], "to": […], "cc": […]}; NULL in rows of older programs.
ALTER TABLE messages ADD COLUMN people TEXT;

-- One row for each attachment of each distinct message; the newest line of a message counts.
CREATE TABLE find_entries (
    -- The second in which the message was sent, times 2^30, plus a number: sorts by date.
    id INTEGER PRIMARY KEY,
    attachment_row INTEGER NOT NULL,
    message_row INTEGER NOT NULL,
    place INTEGER NOT NULL,
    -- In lower case, without control characters.
    name TEXT NOT NULL,
    sender TEXT NOT NULL,
    content_type TEXT NOT NULL,
    sniffed_type TEXT,
    -- -1 if unknown.
    size_bytes INTEGER NOT NULL,
    conversation_id TEXT,
    -- Whether the attachment has entries of other messages too.
    shared INTEGER NOT NULL DEFAULT 0,
    -- 0 while size and sniffed type may still change.
    settled INTEGER NOT NULL
);
CREATE INDEX find_entries_attachment ON find_entries (attachment_row);
CREATE INDEX find_entries_name ON find_entries (name);
CREATE INDEX find_entries_sender ON find_entries (sender);
CREATE INDEX find_entries_size ON find_entries (size_bytes);
CREATE INDEX find_entries_conversation ON find_entries (conversation_id) WHERE conversation_id IS NOT NULL;
CREATE INDEX find_entries_unsettled ON find_entries (attachment_row) WHERE settled = 0;

-- The words of each entry, under its id.
CREATE VIRTUAL TABLE find_text USING fts5 (
    name, subject, people,
    content = '', contentless_delete = 1, tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3'
);

-- How far the index reaches: the last message, and the highest number given out.
CREATE TABLE find_progress (
    singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
    message_row INTEGER NOT NULL,
    entries INTEGER NOT NULL
);
INSERT INTO find_progress (singleton, message_row, entries) VALUES (1, 0, 0);
