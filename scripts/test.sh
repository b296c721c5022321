#!/usr/bin/env bash
# Every check and every test, on a machine where nothing is installed yet: style, types, the order of the rooms, the
# plugin inside the system's QGIS, and the package in its own environment. Arguments go to the last pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh --development
# Idle OpenMP threads sleep: spinning ones slow down the tests that run several processes.
export QT_QPA_PLATFORM=offscreen OMP_WAIT_POLICY=PASSIVE

.venv/bin/ruff check .
.venv/bin/ruff format --check --quiet .
.venv/bin/mypy
.venv/bin/lint-imports --no-cache
# The tests of the plugin wait for other programs much of the time, so those of the package run beside them, and give way.
log=$(mktemp)
# A process a core: the networks of the tests are too small for torch to share one among several.
OMP_NUM_THREADS=1 nice -n 5 .venv/bin/python -m pytest --numprocesses "$(nproc)" --dist worksteal "$@" >"$log" 2>&1 &
package=$!
trap 'kill "$package" 2>/dev/null || true; rm -f "$log"' EXIT
status=0
echo "== plugin, on $(/usr/bin/python3 -c 'from qgis.core import Qgis; print("QGIS", Qgis.QGIS_VERSION)')"
/usr/bin/python3 -m pytest -c tests/plugin/pytest.ini tests/plugin || status=$?
echo "== package"
tail --lines=+1 --follow --pid="$package" "$log"
wait "$package" || status=$?
exit "$status"
