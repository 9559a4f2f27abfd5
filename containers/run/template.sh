#!/usr/bin/env bash
# Prints a batch script for pyxis and enroot, or an environment file for CSCS's container engine, filled in.
# The launcher needs the second alone (CONTAINER=environment IMAGE=FILE), or neither (CONTAINER=pyxis).
#
#   bash containers/run/template.sh pyxis --image nanochat.sqsh [OPTIONS] APP [ITS OPTIONS] > run.sbatch
#   bash containers/run/template.sh edf --image nanochat.sqsh [OPTIONS] > ~/.edf/nanochat.toml
#
# Neither pyxis nor that engine was at hand where this was written: the texts are tested, not their run.
set -euo pipefail
# shellcheck disable=SC1091
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

kind=${1:-}
case $kind in
  pyxis) file=pyxis.sbatch.in ;;
  edf) file=edf.toml.in ;;
  -h | --help) help ;;
  *) fail "which template? pyxis or edf; see --help" ;;
esac
shift
parse_options "$@"
# shellcheck disable=SC2034
PRINT=yes # nothing is made here
prepare
# pyxis takes a name that does not begin like a path for one in a registry.
case $IMAGE in *.sqsh | *.squashfs) IMAGE=$(place "$IMAGE" write) ;; esac

quoted() { printf '%q ' "$@"; }                      # for a shell
listed() { local item; for item in "$@"; do printf '"%s", ' "$item"; done; } # for TOML
table() { local item; for item in "$@"; do printf '%s = "%s"\n' "${item%%=*}" "${item#*=}"; done; }

joined=$(IFS=,; printf '%s' "${MOUNTS[*]}")
folders=$(quoted "$OUT" "$CACHE")
text=$(cat "$(dirname "${BASH_SOURCE[0]}")/$file")
text=${text//@FOLDERS@/"$folders"}
if [ "$kind" = pyxis ]; then
  [ ${#WORDS[@]} -gt 0 ] || fail "which app? train, prepare, ...; see --help"
  for folder in "${MOUNTS[@]}"; do
    case $folder in *[[:space:]]*) fail "${folder%%:*}: pyxis cannot mount a folder with spaces in its path; take \
another one (--out, --data, --cache), or a link to it without any" ;; esac
  done
  text=${text//@IMAGE@/"$(quoted "$IMAGE")"}
  text=${text//@MOUNTS@/"$(quoted "$joined")"}
  text=${text//@OUT@/"$(quoted "$OUT")"}
  text=${text//@VARIABLES@/"$(quoted "${VARIABLES[@]}")"}
  text=${text//@WORDS@/"$(quoted "${WORDS[@]}")"}
else
  text=${text//@IMAGE@/"$IMAGE"}
  text=${text//@MOUNTS@/"$(listed "${MOUNTS[@]}")"}
  text=${text//@OUT@/"$OUT"}
  text=${text//@VARIABLES@/"$(table "${VARIABLES[@]}")"}
fi
printf '%s\n' "$text"
