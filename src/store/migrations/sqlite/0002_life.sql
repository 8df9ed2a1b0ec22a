-- What narrows the use of keys, as JSON; like profiles, shared by many keys and never changed.
CREATE TABLE bounds (
    bound INTEGER PRIMARY KEY,
    text  TEXT NOT NULL UNIQUE
) STRICT;

ALTER TABLE keys ADD COLUMN bound INTEGER REFERENCES bounds;
-- The first key of its line of rotations; NULL: itself.
ALTER TABLE keys ADD COLUMN lineage BLOB;
ALTER TABLE keys ADD COLUMN paired INTEGER NOT NULL DEFAULT 0 CHECK (paired IN (0, 1));
-- Whether its first use ends the grace of the key it replaces.
ALTER TABLE keys ADD COLUMN ends_on_use INTEGER NOT NULL DEFAULT 0 CHECK (ends_on_use IN (0, 1));
CREATE INDEX keys_by_owner ON keys (owner, id) WHERE owner IS NOT NULL;

-- JSON: rate_limit, quota, max_keys, may_grant.
ALTER TABLE owners ADD COLUMN terms TEXT;

-- Where a change came from, when it came over the network.
ALTER TABLE audit ADD COLUMN address TEXT;

-- Sealed answers to requests that may be repeated.
CREATE TABLE repeatable (
    name    BLOB PRIMARY KEY CHECK (length(name) = 32),
    request BLOB NOT NULL CHECK (length(request) = 32),
    sealed  BLOB NOT NULL,
    at      INTEGER NOT NULL,
    revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX repeatable_by_age ON repeatable (at);
