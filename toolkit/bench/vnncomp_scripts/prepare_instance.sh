#!/usr/bin/env bash
# prepare_instance.sh v1 CATEGORY ONNX VNNLIB
# Ends verifiers that an earlier instance left behind, and brings the libraries into the file cache. No analysis.
set -uo pipefail

if [ "${1:-}" != v1 ] || [ $# -ne 4 ]; then
  echo "usage: prepare_instance.sh v1 CATEGORY ONNX VNNLIB" >&2
  exit 2
fi
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
state=${TMPDIR:-/tmp}/prunecert-vnncomp-$(id -u).pid
if [ -f "$state" ]; then
  # The instance runs in a session of its own, so that its group can be ended as a whole.
  kill -KILL -- "-$(cat "$state")" 2>/dev/null || true
  rm -f "$state"
fi
"${PRUNECERT_PYTHON:-$project/.venv/bin/python}" -c 'import toolkit.verify'
