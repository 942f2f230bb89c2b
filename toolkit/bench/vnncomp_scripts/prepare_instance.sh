#!/usr/bin/env bash
# prepare_instance.sh v1 CATEGORY ONNX VNNLIB
# Ends verifiers that an earlier instance left behind, and brings the libraries into the file cache. No analysis.
set -uo pipefail

if [ "${1:-}" != v1 ] || [ $# -ne 4 ]; then
  echo "usage: prepare_instance.sh v1 CATEGORY ONNX VNNLIB" >&2
  exit 2
fi
scripts=$(CDPATH= cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
project=$(CDPATH= cd -- "$scripts/../../.." && pwd)
. "$scripts/state.sh"
own_state_folder && end_left_behind
# -P: modules are never looked for in the current folder.
"${PRUNECERT_PYTHON:-$project/.venv/bin/python}" -P -c 'import toolkit.verify'
