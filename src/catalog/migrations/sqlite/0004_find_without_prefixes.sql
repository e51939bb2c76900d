-- The index of `find` without indexes of prefixes: they made it twice as large and as slow to fill, and a walk over the
-- words that begin so is fast enough. It is filled anew by the next run, or the next `find`.

DROP TABLE find_text;
CREATE VIRTUAL TABLE find_text USING fts5 (
    name, subject, people,
    content = '', contentless_delete = 1, tokenize = 'unicode61 remove_diacritics 2'
);
DELETE FROM find_entries;
UPDATE find_progress SET message_row = 0, entries = 0;
