-- The gateways that enforce these keys, as they last reported. `revision` and `token`: what each decides by;
-- `confirmed_ago`: how long before the report the store had confirmed that; `max_staleness`: how long it serves without
-- the store, NULL for ever. Both in milliseconds.
CREATE TABLE nodes (
    node          BLOB PRIMARY KEY,
    name          TEXT NOT NULL,
    version       TEXT NOT NULL,
    started_at    INTEGER NOT NULL,
    revision      INTEGER,
    token         INTEGER,
    confirmed_ago INTEGER,
    max_staleness INTEGER,
    seen          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
