-- Who adds to counts, and the number of what each added last: whoever never heard of a commit brings the same once more,
-- and it is added once. `at` is by the server's clock.
CREATE TABLE portcullis.writers (
    writer uuid PRIMARY KEY,
    last   bigint NOT NULL,
    at     bigint NOT NULL
) WITH (fillfactor = 30);
