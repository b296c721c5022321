#!/usr/bin/env bash
# Gets everything that the project runs on: QGIS and a virtual screen from Debian's packages, and the worker's own Python
# environment in .venv. Says nothing where nothing is to do.
#
#   scripts/setup.sh                what the demo and the plugin need
#   scripts/setup.sh --development  also what the tests and checks need
#
# RSFUSION_BASE_PYTHON names the Python (3.11 or later) that .venv is made from; by default the system's.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(qgis python3-qgis qgis-providers python3-venv xvfb xauth)
locks=(requirements/worker.lock)
if [ "${1:-}" = "--development" ]; then
  packages+=(python3-pytest)
  locks+=(requirements/development.lock)
elif [ -n "${1:-}" ]; then
  echo "setup.sh takes no argument but --development; got '$1'." >&2
  exit 2
fi

missing=()
if command -v dpkg-query >/dev/null; then
  for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ]; then
      echo "These Debian packages are missing; install them and run this again:" >&2
      echo "  sudo apt-get install ${missing[*]}" >&2
      exit 1
    fi
    echo "Installing Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq "${missing[@]}" >/dev/null
  fi
elif ! command -v qgis_process >/dev/null; then
  echo "This system has no Debian packages. Install QGIS 3.22 or later with its Python bindings and qgis_process, and" >&2
  echo "Python 3.11 or later with venv, then run this again; on Windows and macOS install the plugin's zip in QGIS and" >&2
  echo "run 'Set up the worker environment' from the Processing Toolbox instead." >&2
  exit 1
fi

base=${RSFUSION_BASE_PYTHON:-}
if [ -z "$base" ]; then
  for candidate in /usr/bin/python3 python3.13 python3.12 python3.11 python3; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      base=$candidate
      break
    fi
  done
fi
if [ -z "$base" ]; then
  echo "No Python 3.11 or later with venv was found. Install one, or name it in RSFUSION_BASE_PYTHON." >&2
  exit 1
fi

# Written last, so an environment that was left half built is built anew.
stamp=.venv/rsfusion-locks
wanted=$("$base" --version; cat "${locks[@]}" pyproject.toml)
if [ -f "$stamp" ] && { [ "$(cat "$stamp")" = "$wanted" ]; }; then
  exit 0
fi
# An environment with the development tools serves those who need less.
full=$("$base" --version; cat requirements/worker.lock requirements/development.lock pyproject.toml)
if [ -f "$stamp" ] && { [ "$(cat "$stamp")" = "$full" ]; }; then
  exit 0
fi
echo "Building the worker's environment in .venv with $("$base" --version)"
if [ ! -x .venv/bin/python ] || [ "$(.venv/bin/python --version 2>/dev/null)" != "$("$base" --version)" ]; then
  rm -rf .venv
  "$base" -m venv .venv
fi
rm -f "$stamp"
arguments=()
for lock in "${locks[@]}"; do arguments+=(--requirement "$lock"); done
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input "${arguments[@]}"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --editable .
printf '%s\n' "$wanted" >"$stamp"
