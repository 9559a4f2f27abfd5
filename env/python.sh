#!/usr/bin/env bash
# Runs Python in this kit's environment, which is made first where it is missing or out of date:
#
#   bash env/python.sh -m scripts.chat_cli --run laptop
#
# With --dry-run among the arguments nothing is made: a Python that has the packages which planning needs will do
# (torch is not among them). Written for bash 3.2.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Waiting threads sleep: on a busy or small machine spinning ones cost more than they save.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}

has_packages='from importlib.metadata import version as v; v("cyclopts"), v("psutil"), v("rich")'
case " $* " in
  *" --dry-run "*)
    for python in .venv/bin/python python3; do
      if command -v "$python" >/dev/null && "$python" -c "$has_packages" 2>/dev/null; then
        exec "$python" "$@"
      fi
    done ;;
esac
bash env/setup.sh
exec .venv/bin/python "$@"
