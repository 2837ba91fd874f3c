#!/bin/sh
# Runs races under valgrind's memcheck and fails on any invalid access that is not CPython's own.
#
#   tests/stress/memcheck.sh [PYTHON [RACE ...]]
#
# Not part of the ordinary suite: a race takes ten to sixty seconds here. PYTHON has to find
# tokioloop (installed, or by PYTHONPATH); races are named as the files in races/.
#
# PYTHONMALLOC=malloc gives every object a block of its own, without which memcheck sees nothing of
# what happens inside of the interpreter's arenas. The free-threaded build has no such mode: its
# objects are in mimalloc's pages, so there memcheck only watches what Rust allocates.
# Leaks are not reported: CPython leaves much to the end of the process.
set -eu

here=$(dirname "$0")
python=${1:-python3}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- cancel_against_run schedule_against_close

free_threaded=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("Py_GIL_DISABLED") or 0)')
[ "$free_threaded" = 1 ] || export PYTHONMALLOC=malloc
# In int.from_bytes of nothing but zeroes CPython 3.11 multiplies a digit that it never set by zero,
# and finds the result's object by the product: from then on memcheck takes much of the interpreter
# for unset.
undefined=$("$python" -c 'import sys; print("yes" if sys.version_info >= (3, 12) else "no")')
export PYTHONDEVMODE=0 TOKIOLOOP_STRESS_CALLS="${TOKIOLOOP_STRESS_CALLS:-4000}"
export TOKIOLOOP_STRESS_SECONDS="${TOKIOLOOP_STRESS_SECONDS:-20}"

cd "$here/../.."
for race in "$@"; do
    echo "memcheck: $race"
    timeout 300 valgrind --tool=memcheck --error-exitcode=99 --leak-check=no --quiet \
        --undef-value-errors="$undefined" \
        --fair-sched=try --num-callers=30 --suppressions=tests/stress/memcheck.supp \
        "$python" -m "tests.stress.races.$race"
done
