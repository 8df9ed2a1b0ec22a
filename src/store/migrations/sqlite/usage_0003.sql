-- Texts of rules, each once: `GET /v1/orders/**`.
CREATE TABLE rules (
    rule INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
) STRICT;

-- Requests of a key by rule, status and what became of them (1 allowed, 2 refused, 3 reported). `begins` counts hours
-- since 1970; `span` is 1 for an hour and 24 for a day.
CREATE TABLE counts (
    id       BLOB NOT NULL,
    begins   INTEGER NOT NULL,
    span     INTEGER NOT NULL,
    rule     INTEGER NOT NULL,
    status   INTEGER NOT NULL,
    passage  INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    PRIMARY KEY (id, begins, span, rule, status, passage)
) STRICT, WITHOUT ROWID;
CREATE INDEX counts_by_age ON counts (span, begins);

-- The last client that was seen with a key.
CREATE TABLE seen (
    id      BLOB PRIMARY KEY,
    at      INTEGER NOT NULL,
    address TEXT,
    agent   TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE networks (
    id      BLOB NOT NULL,
    network TEXT NOT NULL,
    first   INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    PRIMARY KEY (id, network)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    event   INTEGER PRIMARY KEY AUTOINCREMENT,
    kind    TEXT NOT NULL,
    id      BLOB,
    address TEXT,
    at      INTEGER NOT NULL,
    detail  TEXT NOT NULL
) STRICT;

-- What report mode let pass. `caller` is the id of a key, a network or `local`; `missing` is separated by spaces.
CREATE TABLE findings (
    rule     INTEGER NOT NULL,
    reason   TEXT NOT NULL,
    caller   TEXT NOT NULL,
    missing  TEXT NOT NULL,
    requests INTEGER NOT NULL,
    first    INTEGER NOT NULL,
    last     INTEGER NOT NULL,
    PRIMARY KEY (rule, reason, caller, missing)
) STRICT, WITHOUT ROWID;
