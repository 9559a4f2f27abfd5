#!/usr/bin/env bash
# Runs an app of a SIF with Apptainer (or Singularity): as you, with a clean environment, without your home folder,
# offline, and with the node's GPUs if it has any.
#
#   bash containers/run/apptainer.sh --image nanochat.sif [OPTIONS] [APP [ITS OPTIONS]]
#   bash containers/run/apptainer.sh --image nanochat.sif --out /scratch/me/nanochat train --preset tiny
set -euo pipefail
# shellcheck disable=SC1091
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

parse_options "$@"
engine=$(command -v apptainer || command -v singularity || true)
[ -z "$PORT" ] || fail "--port is for docker.sh: Apptainer shares this machine's network"
if [ -z "$PRINT" ]; then
  [ -n "$engine" ] || fail "neither apptainer nor singularity is on PATH: load the site's module (bash containers/doctor.sh)"
  [ -e "$IMAGE" ] || fail "--image $IMAGE: there is no such file; build it, or copy it here (containers/README.md)"
fi
prepare

flags=(--cleanenv --no-mount "home,cwd" --pwd "$OUT")
case $(gpus) in nvidia) flags+=(--nv) ;; amd) flags+=(--rocm) ;; esac
for mount in "${MOUNTS[@]}"; do flags+=(--bind "$mount"); done
for variable in "${VARIABLES[@]}"; do flags+=(--env "$variable"); done
for name in ${PASSED[@]+"${PASSED[@]}"}; do # --cleanenv lets these through, without a word in the command line
  export "APPTAINERENV_$name=${!name}" "SINGULARITYENV_$name=${!name}"
done
act "${engine:-apptainer}" run "${flags[@]}" "$IMAGE" ${WORDS[@]+"${WORDS[@]}"}
