#!/bin/sh
# Run once, by the image, on an empty data directory: one role that owns the tables, one that gateways use them by.
set -eu
psql --no-psqlrc -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d postgres \
    -v owner="$(cat /run/secrets/owner-password)" -v gateway="$(cat /run/secrets/store-password)" <<'SQL'
CREATE ROLE portcullis LOGIN PASSWORD :'owner';
CREATE ROLE gateway LOGIN PASSWORD :'gateway';
CREATE DATABASE portcullis OWNER portcullis ENCODING 'UTF8';
\connect portcullis
GRANT CONNECT ON DATABASE portcullis TO gateway;
CREATE SCHEMA portcullis AUTHORIZATION portcullis;
GRANT USAGE ON SCHEMA portcullis TO gateway;
ALTER DEFAULT PRIVILEGES FOR ROLE portcullis IN SCHEMA portcullis
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO gateway;
SQL
