#!/usr/bin/env bash
# The gate: is any case slower, larger or worse than when its baseline was recorded?
#
#   tools/gate.sh record  BASELINE_DIR [pytest arguments]   measure, and keep it as the baseline if the run is green
#   tools/gate.sh compare BASELINE_DIR [pytest arguments]   measure, and be red where a case is worse
#
# PYTHON: the interpreter (default: .venv/bin/python, else python3). BUILD: where everything is written (default: build).
# Ends with pytest's status: 0 green, 1 red, 4 refused (another device, power mode or version), 5 nothing ran.
set -euo pipefail

usage() {
    sed -n '4,5s/^# *//p' "$0" >&2
    exit 2
}

[ $# -ge 2 ] || usage
mode=$1
case $2 in
    /*) baseline=$2 ;;
    *) baseline=$PWD/$2 ;;
esac
shift 2

cd "$(dirname "$0")/.."
build=${BUILD:-build}
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=${PYTHON:-python3}

status=0
case $mode in
    record)
        draft=$(mktemp -d)
        trap 'rm -rf -- "$draft"' EXIT
        if [ -d "$baseline" ]; then
            cp -R -- "$baseline/." "$draft"
        fi
        "$python" -m pytest -c pyproject.toml -p conftest "--build=$build" "--record-baseline=$draft" "$@" || status=$?
        if [ "$status" -eq 0 ]; then
            mkdir -p -- "$baseline"
            cp -R -- "$draft/." "$baseline"
            echo "gate: baseline kept in $baseline"
        else
            echo "gate: the run is not green, so $baseline stays as it was" >&2
        fi
        ;;
    compare)
        "$python" -m pytest -c pyproject.toml -p conftest "--build=$build" "--baseline=$baseline" "$@" || status=$?
        ;;
    *) usage ;;
esac

# A refusal leaves no results of this run, and the report of an older one must not pass for it.
if [ "$status" -lt 2 ] || [ "$status" -eq 5 ]; then
    "$python" -m fixtures.report "$build/allure-results" "$build/report" || echo "gate: no HTML report (see above)" >&2
fi
exit "$status"
