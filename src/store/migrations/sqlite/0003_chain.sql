-- Each row's link to the one before it, and the name of the key it was made with; NULL: none. Rows from before the chain
-- have neither.
ALTER TABLE audit ADD COLUMN mac BLOB CHECK (length(mac) = 32);
ALTER TABLE audit ADD COLUMN sealed_with TEXT;

-- A process of an older version that has the file open since before would go on without sealing.
CREATE TRIGGER audit_is_chained BEFORE INSERT ON audit WHEN new.mac IS NULL
BEGIN
    SELECT RAISE(ABORT, 'a newer portcullis has taken over this store; restart this one');
END;

-- The last row that was dropped from the front, so that the rest still verifies; one row at most.
CREATE TABLE audit_anchor (
    anchor INTEGER PRIMARY KEY CHECK (anchor = 1),
    entry  INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    mac    BLOB CHECK (length(mac) = 32)
) STRICT;
