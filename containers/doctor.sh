#!/usr/bin/env bash
# Looks whether this machine can build and run the images, before anything long begins. Each finding has its remedy.
#
#   bash containers/doctor.sh [--for build|convert|run] [--engine NAME] [--variant cpu|cu126|cu128|cu130]
#
#   --for      what is going to be done here (default: build and run); convert: a SIF of an archive
#   --engine   docker, podman, buildah or apptainer: look at what this one needs (default: all that are on PATH)
#   --variant  the image's torch: a CUDA one needs a driver and more room (default: cu130 with a driver, else cpu)
#
# Exit code 0: nothing is in the way (a `note` is not); 1: something is; 2: usage. Changes nothing, needs no root.
# DOCTOR_ROOT (default: empty) is put before /proc, /sys, /dev and /etc.
set -euo pipefail
# shellcheck disable=SC1091
. "$(dirname "${BASH_SOURCE[0]}")/doctor_hardware.sh"

ROOT=${DOCTOR_ROOT:-} PURPOSE=both ENGINE='' VARIANT='' FAULTS=0 PLACES=()

ok() { printf 'ok     %s\n' "$*"; }
note() { printf 'note   %s\n       remedy: %s\n' "$1" "$2"; }
fault() { printf 'FAULT  %s\n       remedy: %s\n' "$1" "$2"; FAULTS=$((FAULTS + 1)); }
usage() { printf 'doctor: %s\n' "$1" >&2; exit 2; }
parse_options() {
  while [ $# -gt 0 ]; do
    case $1 in
      --for | --engine | --variant) [ $# -ge 2 ] || usage "$1 needs a value; see --help" ;;
    esac
    case $1 in
      --for) PURPOSE=$2; shift 2 ;;
      --engine) ENGINE=$2; shift 2 ;;
      --variant) VARIANT=$2; shift 2 ;;
      -h | --help) sed -n '2,/^# DOCTOR_ROOT/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
      *) usage "unknown option $1; legal are --for, --engine, --variant, --help" ;;
    esac
  done
  case $PURPOSE in both | build | convert | run) ;; *) usage "--for $PURPOSE: use build, convert or run" ;; esac
  case $ENGINE in '' | docker | podman | buildah | apptainer) ;;
    *) usage "--engine $ENGINE: use docker, podman, buildah or apptainer" ;; esac
  case $VARIANT in '' | cpu | cu126 | cu128 | cu130) ;; *) usage "--variant $VARIANT: use cpu, cu126, cu128 or cu130" ;; esac
}

has() { command -v "$1" >/dev/null 2>&1; }
builds() { [ "$PURPOSE" != run ]; }
runs() { case $PURPOSE in both | run) ;; *) return 1 ;; esac; }
uses() { if [ -n "$ENGINE" ]; then [ "$ENGINE" = "$1" ]; else has "$1"; fi; }
plain() { uses apptainer || uses podman || uses buildah; } # engines that build as a plain user
linux() { [ "$(uname -s)" = Linux ]; } # elsewhere engines run in a virtual machine
setting() { cat "$ROOT/proc/sys/$1" 2>/dev/null || true; } # empty where the kernel has no such setting

# ------------------------------------------------------------------------- programs and namespaces

check_engines() {
  local engine found=''
  for engine in ${ENGINE:-apptainer singularity docker podman buildah enroot}; do
    if has "$engine"; then found="$found $engine"; fi
  done
  if [ -n "$found" ]; then ok "engines:$found"; else
    fault "no ${ENGINE:-apptainer, docker, podman or buildah} on PATH" \
      "load the site's module (module avail apptainer), or install Apptainer or podman; docker needs root's help"
  fi
}

# Where Apptainer itself looks for its helpers: beside the program that its name leads to.
find_places() {
  local program link place top
  program=$(command -v apptainer)
  while [ -L "$program" ]; do
    link=$(readlink "$program")
    case $link in /*) program=$link ;; *) program=${program%/*}/$link ;; esac
  done
  place=$(cd "${program%/*}" >/dev/null && pwd -P) || return 0
  top=${place%/*}
  PLACES=("$place" "$top"/libexec/apptainer/bin "$top"/*/libexec/apptainer/bin "$top"/*/utils/bin
    "$top"/lib/apptainer/bin "$top"/lib/*/apptainer/bin)
}

helper() {
  local place
  ! has "$1" || return 0
  for place in ${PLACES[@]+"${PLACES[@]}"}; do [ ! -x "$place/$1" ] || return 0; done
  return 1
}

is_setuid() { # its kernel part mounts images; builds go without it
  local place
  for place in ${PLACES[@]+"${PLACES[@]}"}; do [ ! -u "$place/starter-suid" ] || return 0; done
  return 1
}

check_version() {
  local said major minor
  said=$(apptainer --version 2>/dev/null) || said=
  [[ $said =~ apptainer\ version\ ([0-9]+)\.([0-9]+) ]] || return 0
  major=${BASH_REMATCH[1]} minor=${BASH_REMATCH[2]}
  if [ $((major * 1000 + minor)) -lt 1002 ]; then
    fault "Apptainer $major.$minor is too old for the definitions, which need 1.2 (--build-arg)" \
      "load a newer module (module avail apptainer), or build elsewhere and copy the SIF"
  else
    ok "apptainer: $major.$minor"
  fi
}

needs_namespaces() {
  uses podman || uses buildah || { [ -z "$ENGINE" ] && has enroot; } || { uses apptainer && { builds || ! is_setuid; }; }
}

# Root needs neither namespaces nor subuid, but in a container it may lack what Apptainer asks for.
check_root() {
  local capabilities
  capabilities=$(sed -n 's/^CapBnd:[[:space:]]*//p' "$ROOT/proc/self/status" 2>/dev/null) || capabilities=
  if uses apptainer && [ -n "$capabilities" ] && [ $((16#$capabilities >> 24 & 1)) -eq 0 ]; then
    fault "root has no CAP_SYS_RESOURCE here, and Apptainer as root wants it" "run Apptainer as a plain user (su USER)"
  fi
}

check_namespaces() {
  local most
  most=$(setting user/max_user_namespaces)
  if [ "${most:-1}" = 0 ] || [ "$(setting kernel/unprivileged_userns_clone)" = 0 ]; then
    fault "user namespaces are switched off" \
      "as root: sysctl user.max_user_namespaces=65536 kernel.unprivileged_userns_clone=1; or a set-uid Apptainer"
  elif has unshare && ! unshare -Ur true 2>/dev/null; then
    if [ "$(setting kernel/apparmor_restrict_unprivileged_userns)" = 1 ]; then
      fault "AppArmor forbids user namespaces to this program" \
        "install the engine's own package, which has a profile; or: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    else
      fault "a user namespace cannot be made here (unshare -Ur true fails)" \
        "in a container: start it with --security-opt seccomp=unconfined; else ask the site to allow them"
    fi
  else
    ok "user namespaces: ${most:-no limit}"
  fi
}

check_subuid() {
  local file count who
  who=$(id -un 2>/dev/null) || who=$(id -u)
  for file in subuid subgid; do
    count=$(awk -F: -v name="$who" -v number="$(id -u)" '$1 == name || $1 == number { sum += $3 } END { print sum + 0 }' \
      "$ROOT/etc/$file" 2>/dev/null) || count=0
    if [ "$count" -lt 65536 ]; then
      fault "/etc/$file gives this user $count ids, and a build wants 65536" \
        "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $who; or build elsewhere, copy the SIF"
    elif ! has newuidmap || ! has newgidmap; then
      fault "newuidmap and newgidmap are not on PATH: /etc/$file is of no use" "install the package uidmap (shadow-utils)"
    else
      ok "$file: $count ids"
    fi
  done
}

# ------------------------------------------------------------------------- file systems

check_fuse() {
  if is_setuid; then
    ok "fuse: a set-uid Apptainer needs none"
  elif [ ! -c "$ROOT/dev/fuse" ]; then
    fault "there is no /dev/fuse: each start would unpack the whole image" \
      "as root: modprobe fuse; in a container: --device /dev/fuse; or unpack once: apptainer build --sandbox DIR IMAGE"
  elif [ ! -r "$ROOT/dev/fuse" ] || [ ! -w "$ROOT/dev/fuse" ]; then
    fault "/dev/fuse cannot be opened by this user" "as root: chmod 666 /dev/fuse (its usual mode)"
  elif ! helper squashfuse_ll && ! helper squashfuse; then
    fault "squashfuse is neither on PATH nor beside Apptainer, and Apptainer mounts images with it" "install squashfuse and fuse3"
  else
    ok "fuse: /dev/fuse and squashfuse"
  fi
}

check_squashfs() {
  if helper mksquashfs && helper unsquashfs; then ok "squashfs-tools"; else
    fault "mksquashfs or unsquashfs is neither on PATH nor beside Apptainer" "install the package squashfs-tools"
  fi
}

# Type and options of the mount that holds a folder.
mount_of() {
  awk -v path="$1/" '
    { at = $2; sub(/\/$/, "", at) }
    index(path, at "/") == 1 && length(at) >= best { best = length(at); found = $3 " " $4 }
    END { print found }' "$ROOT/proc/mounts" 2>/dev/null || true
}

# check_room WHAT FOLDER MIB REMEDY
check_room() {
  local folder=$2 free
  while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
  free=$(df -Pk "$folder" 2>/dev/null | awk 'END { print int($4 / 1024) }') || free=0
  if [ "${free:-0}" -lt "$3" ]; then fault "$1: $2 has ${free:-0} MiB free, and this needs about $3" "$4"
  else ok "$1: $2 has $free MiB free"; fi
}

check_temp() {
  local name=APPTAINER_TMPDIR folder=/tmp type options need=6000
  uses apptainer || { name=TMPDIR folder=/var/tmp; }
  folder=${!name:-${TMPDIR:-$folder}}
  [ "$VARIANT" = cpu ] || need=25000
  if [ ! -d "$folder" ] || [ ! -w "$folder" ]; then
    fault "the temporary folder $folder is not there, or is not yours" "mkdir -p it, or export $name=/a/folder"
    return
  fi
  ! linux || read -r type options <<<"$(mount_of "$(cd "$folder" >/dev/null && pwd -P)")" # mounts have no links
  case ${type:-} in
    nfs* | lustre | gpfs | beegfs | cifs | ceph | fuse.*)
      fault "the temporary folder $folder is on $type, where a build cannot set owners and attributes" \
        "export $name to a folder on a local disk, such as /var/tmp/\$USER" ;;
    tmpfs) note "the temporary folder $folder is in memory (tmpfs)" "export $name=/var/tmp, if memory is short" ;;
  esac
  case ",${options:-}," in
    *,noexec,* | *,nodev,*)
      fault "the temporary folder $folder is mounted ${options}: a build runs programs there" \
        "export $name to a folder on a disk without noexec and nodev" ;;
  esac
  check_room "temporary folder" "$folder" "$need" "free some, or export $name=/a/larger/disk"
}

check_disk() {
  local cache=${APPTAINER_CACHEDIR:-${HOME:-/}/.apptainer/cache} need=2000
  [ "$VARIANT" = cpu ] || need=10000
  check_room "image cache" "$cache" "$need" "export APPTAINER_CACHEDIR=/a/larger/disk (homes often have small quotas)"
  check_room "place of the image" "$PWD" "$need" "build into another folder, on scratch or a project disk"
}

main() {
  parse_options "$@"
  local have
  have=$(driver)
  [ -n "$VARIANT" ] || VARIANT=$(best_variant "$have")
  ! has apptainer || find_places
  check_engines
  if [ "$(id -u)" -eq 0 ]; then check_root
  elif linux; then
    if needs_namespaces; then check_namespaces; fi
    if builds && plain && [ "$PURPOSE" != convert ]; then check_subuid; fi
    if uses apptainer; then check_fuse; fi
  fi
  if builds; then
    if uses apptainer; then check_version; check_squashfs; fi
    if plain; then check_temp; fi
    if uses apptainer; then check_disk; fi
  fi
  check_driver "$have"
  if runs; then check_fabric; fi
  [ "$FAULTS" -eq 0 ] || { printf 'doctor: %d fault(s)\n' "$FAULTS"; exit 1; }
  printf 'doctor: nothing in the way\n'
}

main "$@"
