-- A position for each inbox: on a shared catalog every receiver has one of its own.

CREATE TABLE inbox_positions_of_each (
    team_id INTEGER NOT NULL REFERENCES teams (id),
    inbox TEXT NOT NULL,
    segment TEXT NOT NULL,
    byte_offset INTEGER NOT NULL,
    PRIMARY KEY (team_id, inbox)
) WITHOUT ROWID;
INSERT INTO inbox_positions_of_each (team_id, inbox, segment, byte_offset)
    SELECT team_id, inbox, segment, byte_offset FROM inbox_positions WHERE inbox IS NOT NULL;
DROP TABLE inbox_positions;
ALTER TABLE inbox_positions_of_each RENAME TO inbox_positions;
