#!/usr/bin/env bash
# What docker.sh, apptainer.sh and template.sh share; they read it, nobody runs it. Their options:
#
#   --image IMAGE   a SIF, a squashfs file, or a name (default: $NANOCHAT_IMAGE)
#   --out DIR       artifacts, read and written (default: $NANOCHAT_BASE_DIR, else ~/.cache/nanochat)
#   --data DIR      more data, read-only; may repeat, and may lie below --out
#   --cache DIR     compiled kernels and the like, read and written (default: OUT/cache; best on a local disk)
#   --online        may use the network (default for `prepare`)
#   --port N        publish port N on this machine's loopback (docker.sh)
#   --print         say what would be done, and do nothing
#
# Folders have the same path inside and outside. Of the caller's variables only those that `is_passed` names get in.
set -euo pipefail

# shellcheck disable=SC2034
IMAGE=${NANOCHAT_IMAGE:-} OUT=${NANOCHAT_BASE_DIR:-${HOME:-}/.cache/nanochat} CACHE='' ONLINE='' PORT='' PRINT=''
DATA=() WORDS=()

fail() { printf '%s: %s\n' "$(basename "$0")" "$1" >&2; exit 2; }

help() { # the head of the script that was called, then that of this file
  sed -n '2,/^set -euo/s/^# \{0,1\}//p' "$0"
  sed -n '3,/^set -euo/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 0
}

parse_options() {
  while [ $# -gt 0 ]; do
    case $1 in
      --image | --out | --data | --cache | --port) [ $# -ge 2 ] || fail "$1 needs a value; see --help" ;;
    esac
    case $1 in
      --image) IMAGE=$2; shift 2 ;;
      --out) OUT=$2; shift 2 ;;
      --data) DATA+=("$2"); shift 2 ;;
      --cache) CACHE=$2; shift 2 ;;
      --port) PORT=$2; shift 2 ;;
      --online) ONLINE=yes; shift ;;
      --print) PRINT=yes; shift ;;
      -h | --help) help ;;
      --) shift; break ;;
      -*) fail "unknown option $1; options of the app stand behind its name; see --help" ;;
      *) break ;;
    esac
  done
  # shellcheck disable=SC2034
  WORDS=("$@")
  [ "${1:-}" != prepare ] || ONLINE=yes
  [[ $PORT =~ ^[0-9]*$ ]] || fail "--port $PORT: use a number, such as 8000"
  case $IMAGE in *[\"\\]* | *$'\n'*) fail "--image $IMAGE: no quotes, backslashes or line breaks in its name" ;; esac
  [ -n "$IMAGE" ] || fail "which image? --image nanochat.sif, or export NANOCHAT_IMAGE"
}

# A folder's absolute path, made where it is missing (unless nothing is to be done).
place() {
  case $1 in *[:,\"\\]* | *$'\n'*) fail "$1: a mount has no : , quotes, backslashes or line breaks in its path" ;; esac
  [ -n "$PRINT" ] || [ "$2" = read ] || mkdir -p "$1"
  [ "$2" != read ] || [ -d "$1" ] || fail "--data $1: there is no such folder"
  if [ -d "$1" ]; then (cd "$1" && pwd -P); else case $1 in /*) printf '%s' "$1" ;; *) printf '%s' "$PWD/$1" ;; esac; fi
}

# Makes the places absolute; sets MOUNTS (SOURCE:TARGET[:ro], outer ones first) and VARIABLES (NAME=value).
prepare() {
  local folder name
  OUT=$(place "$OUT" write)
  CACHE=$(place "${CACHE:-$OUT/cache}" write)
  MOUNTS=("$OUT:$OUT" "$CACHE:$CACHE")
  for folder in ${DATA[@]+"${DATA[@]}"}; do
    folder=$(place "$folder" read)
    MOUNTS+=("$folder:$folder:ro")
  done
  VARIABLES=("NANOCHAT_BASE_DIR=$OUT" "XDG_CACHE_HOME=$CACHE" "HF_HOME=$CACHE/huggingface"
    "TORCHINDUCTOR_CACHE_DIR=$CACHE/torchinductor" "TRITON_CACHE_DIR=$CACHE/triton"
    "MPLCONFIGDIR=$CACHE/matplotlib")
  [ -n "$ONLINE" ] || VARIABLES+=("NANOCHAT_OFFLINE=1")
  PASSED=()
  for name in $(compgen -e); do
    if is_passed "$name"; then PASSED+=("$name"); fi
  done
}

# Variables of the caller that the program may see; values never stand in a command line, which others can read.
is_passed() {
  case $1 in
    NANOCHAT_BASE_DIR | NANOCHAT_COMMIT | NANOCHAT_ENGINE | NANOCHAT_IMAGE | NANOCHAT_OFFLINE | NANOCHAT_PYTHON) return 1 ;;
    SLURM_* | NCCL_* | GLOO_* | UCX_* | FI_* | OMP_* | MASTER_* | NANOCHAT_* | WANDB_*) return 0 ;;
    RANK | LOCAL_RANK | WORLD_SIZE | CUDA_VISIBLE_DEVICES | ROCR_VISIBLE_DEVICES | TERM | TZ) return 0 ;;
    HF_TOKEN | HF_ENDPOINT | http_proxy | https_proxy | all_proxy | no_proxy) [ -n "$ONLINE" ] ;;
    HTTP_PROXY | HTTPS_PROXY | ALL_PROXY | NO_PROXY) [ -n "$ONLINE" ] ;;
    *) return 1 ;;
  esac
}

# nvidia, amd or none: what this node really has.
gpus() {
  if nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then echo nvidia
  elif [ -c /dev/kfd ]; then echo amd
  else echo none; fi
}

# Becomes the command, or prints it as it could be typed.
act() {
  [ -n "$PRINT" ] || exec "$@"
  printf '%q ' "$@"
  printf '\n# passed on by name: %s\n' "${PASSED[*]:-nothing}"
}
