#!/usr/bin/env bash
# Fuzz every target: `bash rustbpe/fuzz/run.sh [SECONDS]` (600 each by default), seed 1, without a sanitizer, since
# the crate forbids unsafe code; so a stable compiler will do. Finds go to artifacts/, new inputs to corpus/.
# Fewer and smaller inputs with the same coverage: `bash rustbpe/fuzz/run.sh cmin`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

command -v cargo-fuzz >/dev/null || cargo install --locked --quiet cargo-fuzz
cargo fuzz build --sanitizer none --fuzz-dir .
for target in split encode train; do
  if [ "${1:-}" = cmin ]; then
    cargo fuzz cmin --sanitizer none --fuzz-dir . "$target"
  else
    echo "== $target: ${1:-600} s"
    cargo fuzz run --sanitizer none --fuzz-dir . "$target" -- \
      -max_total_time="${1:-600}" -max_len=400 -timeout=10 -seed=1 -print_final_stats=1 -verbosity=0
  fi
done
