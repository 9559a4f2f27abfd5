#!/usr/bin/env bash
# Runs an app of an image with docker, if it answers, else podman (NANOCHAT_ENGINE names one): as you, image read-only,
# without any capability, without a network, and with the machine's GPUs and InfiniBand if it has any.
#
#   bash containers/run/docker.sh --image localhost/nanochat:cpu [OPTIONS] [APP [ITS OPTIONS]]
#   bash containers/run/docker.sh --image localhost/nanochat:cpu train --preset laptop
#   bash containers/run/docker.sh --image localhost/nanochat:cpu --port 8000 serve --host 0.0.0.0
set -euo pipefail
# shellcheck disable=SC1091
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# With --print nothing is called: the first on PATH.
find_engine() {
  if [ -n "$PRINT" ]; then command -v docker || command -v podman || echo docker
  elif docker info >/dev/null 2>&1; then command -v docker # and not a client without its server
  else command -v podman || fail "neither a docker that answers (docker info) nor podman is on PATH; on a cluster take \
containers/run/apptainer.sh"; fi
}

is_podman() { # also behind the name docker
  case $engine in *podman) return 0 ;; esac
  [ -z "$PRINT" ] && [[ $("$engine" --version 2>/dev/null) == podman* ]]
}

is_rootless() { # root of its containers is the user who runs it
  [ -z "$PRINT" ] && [[ $("$engine" info --format '{{.SecurityOptions}}' 2>/dev/null) == *rootless* ]]
}

has_init() { # Debian's podman comes without one
  local place
  for place in /usr/libexec/podman /usr/local/libexec/podman /usr/lib/podman /usr/local/lib/podman; do
    [ ! -x "$place/catatonit" ] || return 0
  done
  command -v catatonit >/dev/null
}

parse_options "$@"
engine=${NANOCHAT_ENGINE:-$(find_engine)}
prepare

user=$(id -u):$(id -g) podman=''
if is_podman; then podman=yes
elif is_rootless; then user=0:0; fi
# SELinux would deny the mounts, and relabelling them is not ours.
flags=(--rm --read-only "--tmpfs=/tmp:rw,exec" --cap-drop=all --security-opt=no-new-privileges
  --security-opt=label=disable --user "$user" --workdir "$OUT" --shm-size=8g --interactive)
if [ -z "$podman" ] || has_init; then flags+=(--init); fi
if [ -t 0 ] && [ -t 1 ]; then flags+=(--tty); fi
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
