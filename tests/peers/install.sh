#!/usr/bin/env bash
# The real peers of the tests: Orthanc with its DICOMweb plugin, DCMTK, PostgreSQL; and ip(8).
set -euo pipefail

packages=(orthanc orthanc-python orthanc-dicomweb orthanc-gdcm dcmtk postgresql iproute2)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "missing peers: ${missing[*]} (install them, or run as root on Debian)" >&2
  [ "${CI:-}" = true ] && exit 1
  exit 0
fi

# The packages must not start their services: tests start servers of their own on loopback.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
