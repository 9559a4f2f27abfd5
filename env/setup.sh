#!/usr/bin/env bash
# Makes the Python environment: a venv with the locked packages and the rustbpe tokenizer.
# Run it as often as you like; when nothing changed, it ends at once.
#
#   bash env/setup.sh [--torch auto|cpu|cu130|...] [--extras report,dev] [--venv DIR] [--dry-run]
#
#   --torch    auto (default): a GPU driver means CUDA, none means the CPU wheel; any other name that uv knows
#              as a torch backend (cu126, rocm6.4, xpu) is passed on
#   --extras   what to install beside the base: report serve slurm track clean export bench harness dev
#              (comma separated; default: report)
#   --venv     where to make it (default: .venv in the clone)
#   --dry-run  say what would be done, and do nothing
#
# Needs Python 3.10 to 3.13 (the variable PYTHON names one) and, the first time, the package registry.
# Written for bash 3.2 without GNU tools, so that it runs on macOS, too.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TORCH=auto EXTRAS=report VENV=$ROOT/.venv DRY=

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$1" >&2; exit "${2:-1}"; }

parse_options() {
  local extra
  while [ $# -gt 0 ]; do
    case $1 in
      --torch | --extras | --venv) [ $# -ge 2 ] || fail "$1 needs a value; see --help" 2 ;;
    esac
    case $1 in
      --torch) TORCH=$2; shift 2 ;;
      --extras) EXTRAS=$2; shift 2 ;;
      --venv) VENV=$2; shift 2 ;;
      --dry-run) DRY=yes; shift ;;
      -h | --help) sed -n '2,/^# Written/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
      *) fail "unknown option $1; legal are --torch, --extras, --venv, --dry-run, --help" 2 ;;
    esac
  done
  for extra in $(words "$EXTRAS"); do
    case $extra in
      report | serve | slurm | track | clean | export | bench | harness | dev) ;;
      *) fail "unknown extra $extra; legal are report serve slurm track clean export bench harness dev" 2 ;;
    esac
  done
  [[ $TORCH =~ ^[a-z]+[0-9.]*$ ]] || fail "unknown torch $TORCH; legal are auto, cpu, cu130 and uv's backends" 2
}

words() { printf '%s' "$1" | tr ',' ' '; }

# within SECONDS COMMAND...: the exit status of COMMAND, which is stopped after SECONDS.
within() {
  local limit=$1 pid clock status=0
  shift
  "$@" &
  pid=$!
  { sleep "$limit"; kill "$pid"; } >/dev/null 2>&1 &
  clock=$!
  wait "$pid" || status=$?
  kill "$clock" 2>/dev/null || true
  return "$status"
}

in_range() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }

find_python() {
  local name
  for name in "$VENV/bin/python" ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python3.10; do
    command -v "$name" >/dev/null && in_range "$name" && command -v "$name" && return
  done
  return 1
}

# The folder of UV_FIND_LINKS or PIP_FIND_LINKS (either may be set and empty) with a torch wheel for this Python.
torch_folder() {
  local abi machine folder wheel
  abi=$("$PY" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
  machine=$("$PY" -c 'import platform; print(platform.machine())')
  for folder in $(words "${UV_FIND_LINKS:-} ${PIP_FIND_LINKS:-}"); do
    folder=${folder#file://}
    for wheel in "$folder/torch-$VERSION"*-"$abi"-*"$machine".whl; do
      [ -f "$wheel" ] && printf '%s\n' "$folder" && return
    done
  done
  return 1
}

# has_driver SERIES: CUDA 13.0 needs a driver of the 580 series, CUDA 12.6 one of the 525 series.
has_driver() {
  local driver
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | sed -n 1p)
  [ "${driver%%.*}" -ge "$1" ]
}

has_cpu_index() { # the question is cheap: it reads an index page and downloads no wheel
  [ -z "$DRY" ] && within 15 "$UV" pip install -q -p "$PY" --dry-run --no-deps --torch-backend=cpu \
    "torch==$VERSION" >/dev/null 2>&1
}

# Which torch: sets ARGS (for uv), LOCK and NEED_MIB (disk); says what it costs.
choose_torch() {
  local choice=$TORCH folder
  ARGS=() LOCK=$ROOT/env/locks/cpu.txt NEED_MIB=12000
  if [ "$choice" = auto ]; then
    if [ "$(uname)" = Darwin ]; then choice=macos
    elif ! nvidia-smi -L >/dev/null 2>&1; then choice=cpu
    elif has_driver 580; then choice=cu130
    elif has_driver 525; then choice=cu126
    else choice=auto; fi
  fi
  [ ! -f "$ROOT/env/locks/$choice.txt" ] || LOCK=$ROOT/env/locks/$choice.txt
  VERSION=$(sed -n 's/^torch==//p' "$LOCK")
  case $choice in
    macos) NEED_MIB=2500; say "torch $VERSION: the macOS wheel, about 0.1 GB" ;;
    cu130) say "torch $VERSION for CUDA 13.0: 4.6 GB with CUDA's libraries" ;;
    cpu)
      if folder=$(torch_folder); then
        ARGS=(--find-links "$folder") NEED_MIB=2500
        say "torch $VERSION: the CPU wheel in $folder"
      elif has_cpu_index; then
        ARGS=(--torch-backend=cpu) NEED_MIB=2500
        say "torch $VERSION: the CPU wheel, about 190 MB"
      elif [ -n "$DRY" ]; then
        say "torch $VERSION: the CPU wheel (190 MB) or, if it is not to be had, the default build (4.6 GB)"
      else
        say "torch $VERSION: no CPU wheel to be had within 15 s, so the registry's default build: 4.6 GB"
      fi ;;
    *) ARGS=("--torch-backend=$choice"); say "torch $VERSION, backend $choice: up to 4.6 GB" ;;
  esac
}

check_disk() {
  local folder=$VENV free_mib
  while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
  free_mib=$(df -Pk "$folder" | awk 'END { print int($4 / 1024) }')
  [ "$free_mib" -ge "$NEED_MIB" ] ||
    fail "$folder has $free_mib MiB free and this needs about $NEED_MIB: free some, or choose another --venv"
}

make_venv() {
  UV=$(command -v uv || true)
  if [ ! -x "$VENV/bin/python" ]; then
    if [ -n "$UV" ]; then "$UV" venv -q --python "$PY" "$VENV"
    else "$PY" -m venv "$VENV" || fail "this Python cannot make a venv: install python3-venv, or uv"; fi
  fi
  PY=$VENV/bin/python
  if [ -z "$UV" ]; then
    UV=$VENV/bin/uv
    [ -x "$UV" ] || "$PY" -m pip install -q uv || fail "uv could not be installed with pip"
  fi
}

install_packages() {
  local extra
  for extra in $(words "$EXTRAS"); do ARGS+=(--extra "$extra"); done
  "$UV" pip install -q -p "$PY" ${ARGS[@]+"${ARGS[@]}"} --constraint "$LOCK" \
    -r "$ROOT/pyproject.toml" "torch==$VERSION" || fail "the packages could not be installed (see above)"
  "$UV" pip install -q -p "$PY" --no-deps -e "$ROOT" || fail "the clone could not be installed (see above)"
}

build_rustbpe() {
  command -v cargo >/dev/null || say "no cargo on PATH: maturin fetches a Rust toolchain first"
  "$UV" pip install -q -p "$PY" "$ROOT/rustbpe" ||
    fail "rustbpe did not build: install Rust 1.85 or newer (https://rustup.rs, or a module of your site), run again"
}

# What the environment was made from. A second run compares it with what it would be made from now.
fingerprint() { (cd "$ROOT" && cat pyproject.toml env/locks/*.txt rustbpe/*.toml rustbpe/Cargo.lock rustbpe/src/*.rs | cksum); }

is_current() {
  local made torch extras extra
  [ -f "$STAMP" ] && "$VENV/bin/python" -c '' 2>/dev/null || return 1
  { read -r made && read -r torch && read -r extras; } <"$STAMP" || return 1
  HAVE=$extras WAS=$torch
  [ "$made" = "$(fingerprint)" ] || return 1
  [ "$TORCH" = auto ] || [ "$TORCH" = "$torch" ] || return 1
  for extra in $(words "$EXTRAS"); do
    case ",$extras," in *",$extra,"*) ;; *) return 1 ;; esac
  done
}

main() {
  parse_options "$@"
  STAMP=$VENV/nanochat-setup.txt HAVE='' WAS=auto UV=''
  if is_current; then
    say "$VENV is up to date"
    return
  fi
  # What was asked for earlier stays asked for.
  EXTRAS=$(printf '%s\n' "$EXTRAS,$HAVE" | tr ',' '\n' | sed '/^$/d' | sort -u | paste -s -d , -)
  [ "$TORCH" != auto ] || TORCH=$WAS
  PY=$(find_python) || fail "no Python 3.10 to 3.13 found: install one, or name it with PYTHON=/path/to/python3"
  say "environment $VENV with $("$PY" -V), extras: ${EXTRAS:-none}"
  [ -n "$DRY" ] || make_venv
  choose_torch
  say "other packages: about 170 MB with the build tools; then rustbpe is compiled, about a minute"
  check_disk
  [ -z "$DRY" ] || return 0
  install_packages
  build_rustbpe
  printf '%s\n%s\n%s\n' "$(fingerprint)" "$TORCH" "$EXTRAS" >"$STAMP"
  say "done in $SECONDS s; activate it with: source $VENV/bin/activate"
}

main "$@"
