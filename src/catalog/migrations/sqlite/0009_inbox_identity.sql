-- Which inbox a position is in: its folder's own name. One of before has none, and does not count.

ALTER TABLE inbox_positions ADD COLUMN inbox TEXT;
