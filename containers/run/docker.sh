#!/usr/bin/env bash
# Runs an app of an image with docker or podman (NANOCHAT_ENGINE names one): as you, image read-only, without any
# capability, without a network, and with the machine's GPUs and InfiniBand if it has any.
#
#   bash containers/run/docker.sh --image nanochat:cpu [OPTIONS] [APP [ITS OPTIONS]]
#   bash containers/run/docker.sh --image nanochat:cpu train --preset laptop
#   bash containers/run/docker.sh --image nanochat:cpu --port 8000 serve --host 0.0.0.0
set -euo pipefail
# shellcheck disable=SC1091
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

parse_options "$@"
engine=${NANOCHAT_ENGINE:-$(command -v docker || command -v podman || true)}
[ -n "$engine$PRINT" ] || fail "neither docker nor podman is on PATH; on a cluster take containers/run/apptainer.sh"
prepare

flags=(--rm --init --read-only "--tmpfs=/tmp:rw,exec" --cap-drop=all --security-opt=no-new-privileges
  --user "$(id -u):$(id -g)" --workdir "$OUT" --shm-size=8g)
if [ -t 0 ] && [ -t 1 ]; then flags+=(--interactive --tty); fi
case ${engine:=docker} in *podman) podman=yes ;; *) podman='' ;; esac
if [ -n "$podman" ] && [ "$(id -u)" -ne 0 ]; then flags+=(--userns=keep-id); fi
if [ -n "$PORT" ]; then flags+=(--publish "127.0.0.1:$PORT:$PORT")
elif [ -z "$ONLINE" ]; then # torchrun wants the machine's own name to resolve, which nothing else does here
  flags+=(--network=none --hostname=nanochat --add-host=nanochat:127.0.0.1)
fi
case $(gpus)$podman in
  nvidia) flags+=(--gpus=all) ;;
  nvidiayes) flags+=(--device=nvidia.com/gpu=all) ;;
  amd*) flags+=(--device=/dev/kfd --device=/dev/dri --group-add=video) ;;
esac
if [ -d /dev/infiniband ]; then flags+=(--device=/dev/infiniband --ulimit=memlock=-1 --cap-add=IPC_LOCK); fi
for mount in "${MOUNTS[@]}"; do flags+=(--volume "$mount"); done
for variable in "${VARIABLES[@]}" ${PASSED[@]+"${PASSED[@]}"}; do flags+=(--env "$variable"); done
act "$engine" run "${flags[@]}" "$IMAGE" ${WORDS[@]+"${WORDS[@]}"}
