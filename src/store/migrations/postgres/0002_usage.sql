-- What requests leave behind. Nothing decides by it, and writing it touches no revision.

CREATE TABLE portcullis.last_used (
    id uuid PRIMARY KEY,
    at bigint NOT NULL
) WITH (fillfactor = 80);

-- `holder`: 1 a key, 2 an owner. `period`: 1 a day, 2 a month.
CREATE TABLE portcullis.quota_counts (
    holder   smallint NOT NULL,
    id       uuid NOT NULL,
    period   smallint NOT NULL,
    begins   bigint NOT NULL,
    requests bigint NOT NULL,
    PRIMARY KEY (holder, id, period, begins)
) WITH (fillfactor = 80);

-- Texts of rules, each once: `GET /v1/orders/**`. Texts are compared byte by byte, whatever the database's language.
CREATE TABLE portcullis.rules (
    rule   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL UNIQUE,
    text   text COLLATE "C" NOT NULL
);

-- Requests of a key by rule, status and what became of them (1 allowed, 2 refused, 3 reported). `begins` counts hours
-- since 1970; `span` is 1 for an hour and 24 for a day.
CREATE TABLE portcullis.counts (
    id       uuid NOT NULL,
    begins   bigint NOT NULL,
    span     bigint NOT NULL,
    rule     bigint NOT NULL,
    status   integer NOT NULL,
    passage  smallint NOT NULL,
    requests bigint NOT NULL,
    PRIMARY KEY (id, begins, span, rule, status, passage)
);
CREATE INDEX counts_by_age ON portcullis.counts (span, begins);

-- The last client that was seen with a key.
CREATE TABLE portcullis.seen (
    id      uuid PRIMARY KEY,
    at      bigint NOT NULL,
    address text,
    agent   text
);

CREATE TABLE portcullis.networks (
    id      uuid NOT NULL,
    network text COLLATE "C" NOT NULL,
    first   bigint NOT NULL,
    last    bigint NOT NULL,
    PRIMARY KEY (id, network)
);

CREATE TABLE portcullis.events (
    event   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind    text NOT NULL,
    id      uuid,
    address text,
    at      bigint NOT NULL,
    detail  text NOT NULL
);

-- What report mode let pass. `caller` is the id of a key, a network, `local` or `other`; `missing` is separated by
-- spaces, and `digest` is made of it.
CREATE TABLE portcullis.findings (
    rule     bigint NOT NULL,
    reason   text COLLATE "C" NOT NULL,
    caller   text COLLATE "C" NOT NULL,
    digest   bytea NOT NULL,
    missing  text COLLATE "C" NOT NULL,
    requests bigint NOT NULL,
    first    bigint NOT NULL,
    last     bigint NOT NULL,
    PRIMARY KEY (rule, reason, caller, digest)
);
