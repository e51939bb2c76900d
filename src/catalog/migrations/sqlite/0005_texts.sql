-- Texts of payloads that were taken in: what is replayed again byte for byte need not be parsed. A cache; it may be emptied.

CREATE TABLE texts (
    -- The first 16 bytes of the text's SHA-256.
    digest BLOB NOT NULL,
    -- An attachment of it; 0 for a text without any.
    attachment_row INTEGER NOT NULL,
    -- Of what decides what is made of a text: program, archive, teams and their rules. Others know nothing of it.
    rules INTEGER NOT NULL,
    -- Whether these rules skip it wherever it stands in the text.
    is_skipped INTEGER NOT NULL,
    PRIMARY KEY (digest, attachment_row)
) WITHOUT ROWID;
