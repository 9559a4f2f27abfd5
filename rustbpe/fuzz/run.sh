#!/usr/bin/env bash
# Fuzz every target: `bash rustbpe/fuzz/run.sh [SECONDS]` (600 each by default), seed 1. Without a sanitizer, since
# the crate forbids unsafe code; so a stable compiler will do. What it finds lies in artifacts/; the corpora are
# left as they are. `bash rustbpe/fuzz/run.sh [SECONDS] keep` adds the inputs that reached new code to them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

command -v cargo-fuzz >/dev/null || cargo install --locked --quiet cargo-fuzz
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
cargo fuzz build --sanitizer none --fuzz-dir .
grown=$(mktemp -d)
trap 'rm -rf "$grown"' EXIT
for target in split encode train; do
  echo "== $target: ${1:-600} s"
  mkdir -p "$grown/$target"
  cargo fuzz run --sanitizer none --fuzz-dir . "$target" "$grown/$target" "corpus/$target" -- \
    -max_total_time="${1:-600}" -max_len=400 -timeout=10 -seed=1 -print_final_stats=1 -verbosity=0
  if [ "${2:-}" = keep ]; then
    # By edges, not by how often they are taken: some dozens of inputs instead of hundreds.
    cargo fuzz run --sanitizer none --fuzz-dir . "$target" "corpus/$target" "$grown/$target" -- \
      -merge=1 -use_counters=0 -max_len=400 -verbosity=0
  fi
done
