#!/usr/bin/env bash
# Runs a command as the plain user $CONTAINER_USER, with a fuse device that it may open and Apptainer on PATH, in a
# private mount namespace: the host's devices stay as they are.   as_user.sh FOLDER PROGRAM [ARGUMENT...]
set -euo pipefail
export CONTAINER_USER=${CONTAINER_USER:-ctest} PREFIX=${PREFIX:-/opt/apptainer} FOLDER=$1
export NODE=/run/fuse.$CONTAINER_USER
shift
[ -c "$NODE" ] || mknod -m 666 "$NODE" c 10 229
printf -v COMMAND '%q ' "$@"
export COMMAND
# shellcheck disable=SC2016
exec unshare -m --propagation private bash -c '
  mount --bind "$NODE" /dev/fuse
  exec su -s /bin/bash "$CONTAINER_USER" -c "export PATH=$PREFIX/usr/bin:/usr/local/bin:/usr/bin:/bin; cd $FOLDER; exec $COMMAND"'
