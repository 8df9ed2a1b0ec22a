-- The newest revision and its token: one row. Whoever changes something locks it first, so that revisions become
-- visible in their order.
CREATE TABLE portcullis.head (
    head     boolean PRIMARY KEY DEFAULT true CHECK (head),
    revision bigint NOT NULL,
    token    bigint NOT NULL
) WITH (fillfactor = 10);

-- Every committing transaction that is remembered: its revision, and the random token that tells two histories apart.
CREATE TABLE portcullis.revisions (
    revision bigint PRIMARY KEY,
    token    bigint NOT NULL,
    at       bigint NOT NULL
);

WITH first AS (
    INSERT INTO portcullis.head (revision, token)
    SELECT 0, ('x' || left(replace(gen_random_uuid()::text, '-', ''), 16))::bit(64)::bigint
    RETURNING revision, token
)
INSERT INTO portcullis.revisions (revision, token, at)
SELECT revision, token, (extract(epoch FROM now()) * 1000)::bigint FROM first;

-- What keys may be used for: shared by many, stored once, never changed. JSON; `digest` is made of all three.
CREATE TABLE portcullis.profiles (
    profile bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest  bytea NOT NULL UNIQUE CHECK (length(digest) = 32),
    scopes  text NOT NULL,
    roles   text NOT NULL,
    bounds  text
);

-- Times are milliseconds since 1970. `terms` is JSON: rate_limit, quota, max_keys, may_grant.
CREATE TABLE portcullis.owners (
    id         uuid PRIMARY KEY,
    name       text NOT NULL,
    suspended  boolean NOT NULL,
    created_at bigint NOT NULL,
    metadata   text,
    terms      text,
    revision   bigint NOT NULL
);
CREATE INDEX owners_by_revision ON portcullis.owners (revision);

-- `kind`: 1 secret, 2 publishable, 3 management. `lineage`: the first key of its line of rotations; NULL: itself.
CREATE TABLE portcullis.keys (
    id          uuid PRIMARY KEY,
    hash        bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    profile     bigint NOT NULL REFERENCES portcullis.profiles,
    owner       uuid REFERENCES portcullis.owners,
    environment text NOT NULL,
    kind        smallint NOT NULL CHECK (kind IN (1, 2, 3)),
    active      boolean NOT NULL,
    revoked_at  bigint,
    expires_at  bigint,
    grace_until bigint,
    created_at  bigint NOT NULL,
    lineage     uuid,
    ends_on_use boolean NOT NULL,
    replaces    uuid,
    revision    bigint NOT NULL,
    name        text NOT NULL,
    description text,
    prefix      text NOT NULL,
    last4       text NOT NULL,
    pepper      text,
    may_grant   text,
    created_by  text NOT NULL,
    metadata    text,
    paired      boolean NOT NULL
);
CREATE INDEX keys_by_revision ON portcullis.keys (revision);
CREATE INDEX keys_by_revocation ON portcullis.keys (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX keys_by_owner ON portcullis.keys (owner, id) WHERE owner IS NOT NULL;

-- Hashes that no longer lead to a key, until every reader must have heard of it.
CREATE TABLE portcullis.removed (
    revision bigint NOT NULL,
    id       uuid NOT NULL,
    hash     bytea NOT NULL CHECK (length(hash) = 32)
);
CREATE INDEX removed_by_revision ON portcullis.removed (revision);

-- Who changed what; written in the transaction that changes it. Never a key, never a hash. Each row's `mac` links it to
-- the one before it; `sealed_with` names the key of the mac; NULL: none.
CREATE TABLE portcullis.audit (
    entry       bigint PRIMARY KEY,
    revision    bigint NOT NULL,
    at          bigint NOT NULL,
    actor       text NOT NULL,
    address     text,
    action      text NOT NULL,
    subject     text NOT NULL,
    before      text,
    after       text,
    mac         bytea NOT NULL CHECK (length(mac) = 32),
    sealed_with text
);

-- The last row that was dropped from the front, so that the rest still verifies; one row at most.
CREATE TABLE portcullis.audit_anchor (
    anchor boolean PRIMARY KEY DEFAULT true CHECK (anchor),
    entry  bigint NOT NULL,
    at     bigint NOT NULL,
    mac    bytea NOT NULL CHECK (length(mac) = 32)
);

-- Sealed answers to requests that may be repeated.
CREATE TABLE portcullis.repeatable (
    name     bytea PRIMARY KEY CHECK (length(name) = 32),
    request  bytea NOT NULL CHECK (length(request) = 32),
    sealed   bytea NOT NULL,
    at       bigint NOT NULL,
    revision bigint NOT NULL
);
CREATE INDEX repeatable_by_age ON portcullis.repeatable (at);
