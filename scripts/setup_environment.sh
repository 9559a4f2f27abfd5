#!/usr/bin/env bash
# Makes the Python environment for a cluster, on a node that has the network (usually a login node):
#
#   bash scripts/setup_environment.sh [--site NAME]
#
# Modules, Python and torch are those of the site file in env/sites; env/README.md says more.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../env/on_site.sh" --setup "$@"
