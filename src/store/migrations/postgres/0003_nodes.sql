-- When a change was committed, by the server's clock; NULL where it was before this column.
ALTER TABLE portcullis.revisions ADD COLUMN noted_at bigint;
ALTER TABLE portcullis.revisions
    ALTER COLUMN noted_at SET DEFAULT (extract(epoch FROM clock_timestamp()) * 1000)::bigint;

-- The gateways that enforce these keys, as they last reported. `revision` and `token`: what each decides by;
-- `confirmed_ago`: how long before the report the store had confirmed that; `max_staleness`: how long it serves without
-- the store, NULL for ever. Both in milliseconds. `seen` is by the server's clock.
CREATE TABLE portcullis.nodes (
    node          uuid PRIMARY KEY,
    name          text NOT NULL,
    version       text NOT NULL,
    started_at    bigint NOT NULL,
    revision      bigint,
    token         bigint,
    confirmed_ago bigint,
    max_staleness bigint,
    seen          bigint NOT NULL
) WITH (fillfactor = 30);
