-- Each row's link to the one before it, and the name of the key it was made with; NULL: none. Rows from before the chain
-- have neither.
ALTER TABLE audit ADD COLUMN mac BLOB CHECK (length(mac) = 32);
ALTER TABLE audit ADD COLUMN sealed_with TEXT;

-- The last row that was dropped from the front, so that the rest still verifies; one row at most.
CREATE TABLE audit_anchor (
    anchor INTEGER PRIMARY KEY CHECK (anchor = 1),
    entry  INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    mac    BLOB CHECK (length(mac) = 32)
) STRICT;
