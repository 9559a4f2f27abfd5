#!/usr/bin/env bash
# Gets Debian's Chromium for the tests of the page, and prints where it is.
#
#   bash tests/browser/install.sh
#
# As root: apt-get install. Otherwise the packages are unpacked below ~/.cache/nanochat/chromium, without root.
set -euo pipefail

FOLDER=${XDG_CACHE_HOME:-$HOME/.cache}/nanochat/chromium

fail() { printf 'browser: %s\n' "$1" >&2; exit 1; }

if program=$(command -v chromium || command -v google-chrome); then printf '%s\n' "$program"; exit; fi
if [ -x "$FOLDER/chromium" ]; then printf '%s\n' "$FOLDER/chromium"; exit; fi
command -v apt-get >/dev/null || fail "no apt-get here: install Chromium, or name one in NANOCHAT_CHROMIUM"

if [ "$(id -u)" = 0 ]; then
  { apt-get update && apt-get install -y --no-install-recommends chromium; } >&2 || fail "apt-get install chromium failed"
  command -v chromium
  exit
fi

mkdir -p "$FOLDER/archives/partial" "$FOLDER/root"
apt-get install -y --no-install-recommends --download-only -o "Dir::Cache::archives=$FOLDER/archives" \
  -o Debug::NoLocking=1 chromium >&2 || fail "apt-get could not download chromium"
for package in "$FOLDER"/archives/*.deb; do dpkg -x "$package" "$FOLDER/root"; done
libraries=$FOLDER/root/usr/lib/$(uname -m)-linux-gnu
cat > "$FOLDER/chromium" <<LAUNCHER
#!/bin/sh
LD_LIBRARY_PATH="$libraries" exec "$FOLDER/root/usr/lib/chromium/chromium" "\$@"
LAUNCHER
chmod +x "$FOLDER/chromium"
printf '%s\n' "$FOLDER/chromium"
