#!/bin/sh
# Valkey with one user, who may do what gateways do and nothing else. The password is in no argument and no environment.
# What is kept here may be lost at any time (docs/shared-limits.md), so nothing is written to disk.
set -eu
umask 077
cat >/run/valkey/valkey.conf <<CONF
port 6379
bind *
protected-mode no
save ""
appendonly no
maxmemory 192mb
maxmemory-policy noeviction
user default on nopass -@all +ping
user portcullis on >$(cat /run/secrets/limits-password) ~portcullis:* -@all +evalsha +script|load +ping +time +get +set +del
CONF
exec valkey-server /run/valkey/valkey.conf
