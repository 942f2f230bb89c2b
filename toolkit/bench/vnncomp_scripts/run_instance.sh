#!/usr/bin/env bash
# run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS_FILE TIMEOUT
# Writes the verdict to RESULTS_FILE, and for sat the counterexample from line 2 on.
# ONNX is a path, or for several networks a list of pairs as instances.csv writes it: [('f', 'a.onnx'), ('g', 'b.onnx')]
set -uo pipefail
# Where numbers have a decimal comma, bash would write one here.
PRUNECERT_STARTED=$(LC_ALL=C && printf %s "${EPOCHREALTIME:-$(date +%s.%N)}")
export PRUNECERT_STARTED

if [ "${1:-}" != v1 ] || [ $# -ne 6 ]; then
  echo "usage: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS_FILE TIMEOUT" >&2
  exit 2
fi
scripts=$(CDPATH= cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
project=$(CDPATH= cd -- "$scripts/../../.." && pwd)
. "$scripts/state.sh"
own_state_folder && keep_state=yes || keep_state=
shift
# A session of its own, so that its group can be ended as a whole: TERM ends it here, and prepare_instance.sh what a
# KILL of this script left. -P: modules are never looked for in the current folder.
child=
finish() { [ -z "$keep_state" ] || rm -f "$state"; }
trap '[ -z "$child" ] || kill -KILL -- "-$child" 2>/dev/null; finish; exit 143' TERM INT HUP
setsid "${PRUNECERT_PYTHON:-$project/.venv/bin/python}" -P -m toolkit.bench.vnncomp "$@" &
child=$!
[ -z "$keep_state" ] || note_running "$child"
wait "$child"
status=$?
finish
exit "$status"
