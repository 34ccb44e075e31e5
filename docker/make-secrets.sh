#!/usr/bin/env bash
# Makes what compose.yaml needs to know and nobody else, in docker/secrets; leaves what is there.
set -euo pipefail
umask 077
folder=${1:-"$(dirname "$0")/secrets"}
mkdir -p "$folder"
chmod 0700 "$folder"  # also one that was there before

word() { head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n'; }
keep() { [ -s "$folder/$1" ] || printf '%s\n' "$2" >"$folder/$1"; }

keep control-token "$(word)"
keep postgres-password "$(word)"
password=$(cat "$folder/postgres-password")
keep pgpass "postgres:5432:pacs_bridge:bridge:$password"
keep orthanc-users.json "{ \"RegisteredUsers\": { \"orthanc\": \"$(word)\" } }"

# Compose binds the files as they are: each is read by a user that the host does not have. The
# folder is closed, so nobody else of the host comes to them.
chmod 0444 "$folder/control-token" "$folder/postgres-password" "$folder/orthanc-users.json"
# libpq takes no password from a file that others can read.
if [ "$(id -u)" = 0 ]; then
  chown 10001:10001 "$folder/pgpass"
else
  echo "as root: chown 10001:10001 $folder/pgpass (the user of the container reads it)" >&2
fi
chmod 0600 "$folder/pgpass"
