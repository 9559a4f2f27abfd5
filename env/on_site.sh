#!/usr/bin/env bash
# Runs Python on a cluster as its site file says: loads its modules, then takes its PYTHON, or the environment of this
# clone, which is made first where it is missing (for the site's TORCH):
#
#   bash env/on_site.sh -m scripts.launch status exp1
#   bash env/on_site.sh --setup [--site NAME]          only make the environment
#
# The site is that of --site NAME, NANOCHAT_SITE or .env.local. Files are read line by line, never executed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}

in_file() { [ -f "$2" ] && sed -n "s/^$1=//p" "$2" | sed -e "s/^['\"]//" -e "s/['\"]\$//" | sed -n 1p; }

# The value of a key: command line, environment, .env.local, site file.
key() {
  local name=$1 word variable=NANOCHAT_$1 value
  shift
  for word in "$@"; do
    case $word in "$name="*) printf '%s' "${word#*=}"; return ;; esac
  done
  value=${!variable:-}
  [ -n "$value" ] || value=$(in_file "$name" .env.local) || value=
  [ -n "$value" ] || value=$(in_file "$name" "$SITE_FILE") || value=
  printf '%s' "$value"
}

site=${NANOCHAT_SITE:-$(in_file SITE .env.local || true)} before=
for word in "$@"; do
  case $before in --site) site=$word ;; esac
  case $word in --site=* | site=*) site=${word#*=} ;; esac
  before=$word
done
case ${site:=generic} in *.env) SITE_FILE=$site ;; *) SITE_FILE=env/sites/$site.env ;; esac
[ -f "$SITE_FILE" ] || { printf 'no site file %s; sites are in env/sites\n' "$SITE_FILE" >&2; exit 2; }

modules=$(key MODULES "$@")
if [ -n "$modules" ]; then
  set +eu # what sites do in there is not ours
  # shellcheck disable=SC1091
  command -v module >/dev/null || . /etc/profile
  for name in $modules; do module load "$name" || { printf 'module load %s failed\n' "$name" >&2; exit 1; }; done
  set -eu
fi
python=$(key PYTHON "$@") torch=$(key TORCH "$@")
if [ -z "$python" ]; then
  bash env/setup.sh --torch "${torch:-cu130}" --extras report,slurm,serve
  python=.venv/bin/python
fi
if [ "${1:-}" = --setup ]; then
  printf 'setup: the jobs run %s\n' "$python"
  exit 0
fi
exec "$python" "$@"
