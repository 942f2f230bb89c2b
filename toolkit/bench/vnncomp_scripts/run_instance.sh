#!/usr/bin/env bash
# run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS_FILE TIMEOUT
# Writes the verdict to RESULTS_FILE, and for sat the counterexample from line 2 on.
# ONNX is a path, or for several networks a list of pairs as instances.csv writes it: [('f', 'a.onnx'), ('g', 'b.onnx')]
set -uo pipefail
PRUNECERT_STARTED=${EPOCHREALTIME:-$(date +%s.%N)}
export PRUNECERT_STARTED

if [ "${1:-}" != v1 ] || [ $# -ne 6 ]; then
  echo "usage: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS_FILE TIMEOUT" >&2
  exit 2
fi
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
state=${TMPDIR:-/tmp}/prunecert-vnncomp-$(id -u).pid
shift
# A session of its own, so that the harness's kill of this script does not leave children behind: TERM ends the group
# here, and prepare_instance.sh ends what a KILL left.
setsid "${PRUNECERT_PYTHON:-$project/.venv/bin/python}" -m toolkit.bench.vnncomp "$@" &
child=$!
echo "$child" > "$state"
trap 'kill -KILL -- "-$child" 2>/dev/null; rm -f "$state"; exit 143' TERM INT
wait "$child"
status=$?
rm -f "$state"
exit "$status"
