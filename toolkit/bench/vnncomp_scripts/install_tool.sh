#!/usr/bin/env bash
# install_tool.sh v1
# Installs prunecert and what it needs in a virtual environment in the project's folder.
set -euo pipefail

[ "${1:-}" = v1 ] || { echo "usage: install_tool.sh v1" >&2; exit 2; }
project=$(CDPATH= cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../../.." && pwd)
"${PYTHON:-python3}" -P -m venv "$project/.venv"
"$project/.venv/bin/python" -P -m pip install --editable "$project"
"$project/.venv/bin/prunecert" --version
