-- What tells this catalog of an archive from any other of it; random, and made when the archive is next opened by a program
-- that knows of it.

ALTER TABLE archives ADD COLUMN catalog_id BYTEA;
