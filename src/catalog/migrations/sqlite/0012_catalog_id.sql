-- What tells this catalog of an archive from any other of it; random, and made when the archive is next opened.

ALTER TABLE archives ADD COLUMN catalog_id BLOB;
