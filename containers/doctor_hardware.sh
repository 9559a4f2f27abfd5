#!/usr/bin/env bash
# What doctor.sh looks at of GPUs and InfiniBand; it reads this file, nobody runs it.
set -euo pipefail

# Series of the NVIDIA driver, empty without one; /proc tells it where nvidia-smi is missing.
driver() {
  local said
  said=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | sed -n 1p) || said=
  case $said in
    [0-9]*) ;;
    *) said=$(sed -n 's/.*Kernel Module.*[[:space:]]\([0-9][0-9][0-9]\.[0-9]*\).*/\1/p' \
      "$ROOT/proc/driver/nvidia/version" 2>/dev/null) || said= ;;
  esac
  printf '%s' "${said%%.*}"
}

# The oldest driver series of each variant (NVIDIA's table of minor version compatibility).
least_driver() { case $1 in cu130) echo 580 ;; cu126 | cu128) echo 525 ;; *) echo 0 ;; esac; }

check_driver() {
  local have=$1 least
  least=$(least_driver "$VARIANT")
  if [ "$least" -eq 0 ]; then
    if [ -z "$have" ]; then ok "variant cpu needs no driver"; else
      note "driver $have is there, and the variant is cpu: no GPU will be used" "--variant $(best_variant "$have")"
    fi
  elif [ -z "$have" ]; then
    if runs && ! builds; then
      fault "variant $VARIANT, and no NVIDIA driver on this node" "run it on a GPU node, or take the variant cpu"
    else
      note "variant $VARIANT, and no NVIDIA driver on this node" "a build needs none; run the image on a GPU node"
    fi
  elif [ "$have" -lt "$least" ]; then
    fault "driver $have is too old for variant $VARIANT, which needs $least" \
      "take --variant $(best_variant "$have"), or ask the site for a newer driver"
  else
    ok "driver: series $have, variant $VARIANT"
  fi
}

best_variant() {
  if [ "${1:-0}" -ge 580 ]; then echo cu130; elif [ "${1:-0}" -ge 525 ]; then echo cu126; else echo cpu; fi
}

check_fabric() {
  local ports=("$ROOT"/sys/class/infiniband/*/ports/*/state) verbs=("$ROOT"/dev/infiniband/uverbs*) limit
  if [ ! -f "${ports[0]}" ]; then
    ok "InfiniBand: none"
    return
  elif ! grep -q ACTIVE "${ports[@]}"; then
    fault "InfiniBand is there, and no port of it is active" "tell the site; until then nodes talk over TCP"
  elif [ ! -r "${verbs[0]}" ] || [ ! -w "${verbs[0]}" ]; then
    fault "InfiniBand is there, and /dev/infiniband cannot be opened: NCCL would take TCP, many times slower" \
      "docker and podman: --device /dev/infiniband --ulimit memlock=-1 --ipc host; else ask the site"
  else
    ok "InfiniBand: an active port"
  fi
  limit=$(ulimit -l)
  [ "$limit" = unlimited ] || fault "only $limit KiB of memory may be locked, and InfiniBand locks its buffers" \
    "docker: --ulimit memlock=-1; Slurm: PropagateResourceLimitsExcept=MEMLOCK, which the site sets"
}
