-- Every committing transaction, newest last: its revision, and the random token that tells two histories apart.
-- The newest row is the head of the store; the oldest is how far back changes are remembered.
CREATE TABLE revisions (
    revision INTEGER PRIMARY KEY,
    token    INTEGER NOT NULL,
    at       INTEGER NOT NULL
) STRICT;
INSERT INTO revisions (revision, token, at) VALUES (0, random(), unixepoch() * 1000);

-- Names and pairs that many keys share are stored once. Rows are never changed.
CREATE TABLE environments (
    environment INTEGER PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE profiles (
    profile INTEGER PRIMARY KEY,
    scopes  TEXT NOT NULL,
    roles   TEXT NOT NULL,
    UNIQUE (scopes, roles)
) STRICT;

CREATE TABLE owners (
    owner      INTEGER PRIMARY KEY,
    id         BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    name       TEXT NOT NULL,
    suspended  INTEGER NOT NULL CHECK (suspended IN (0, 1)),
    created_at INTEGER NOT NULL,
    metadata   TEXT,
    revision   INTEGER NOT NULL
) STRICT;
CREATE INDEX owners_by_revision ON owners (revision);

-- What the decision needs comes first, so that loading the set does not touch the rest of a long row.
CREATE TABLE keys (
    key         INTEGER PRIMARY KEY,
    id          BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    hash        BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    profile     INTEGER NOT NULL REFERENCES profiles,
    owner       INTEGER REFERENCES owners,
    environment INTEGER NOT NULL REFERENCES environments,
    kind        INTEGER NOT NULL CHECK (kind IN (1, 2, 3)),
    active      INTEGER NOT NULL CHECK (active IN (0, 1)),
    revoked_at  INTEGER,
    expires_at  INTEGER,
    grace_until INTEGER,
    created_at  INTEGER NOT NULL,
    revision    INTEGER NOT NULL,
    name        TEXT NOT NULL,
    description TEXT,
    prefix      TEXT NOT NULL,
    last4       TEXT NOT NULL,
    pepper      TEXT,
    may_grant   TEXT,
    created_by  TEXT NOT NULL,
    replaces    BLOB,
    metadata    TEXT
) STRICT;
CREATE INDEX keys_by_revision ON keys (revision);
CREATE INDEX keys_by_revocation ON keys (revoked_at) WHERE revoked_at IS NOT NULL;

-- Hashes that no longer lead to a key, until every reader must have heard of it.
CREATE TABLE removed (
    revision INTEGER NOT NULL,
    id       BLOB NOT NULL,
    hash     BLOB NOT NULL
) STRICT;
CREATE INDEX removed_by_revision ON removed (revision);

-- Who changed what; written in the transaction that changes it. Never a key, never a hash.
CREATE TABLE audit (
    entry    INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    actor    TEXT NOT NULL,
    action   TEXT NOT NULL,
    subject  TEXT NOT NULL,
    before   TEXT,
    after    TEXT
) STRICT;
