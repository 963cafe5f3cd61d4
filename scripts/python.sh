#!/usr/bin/env bash
# Runs Python with the packages of scripts/python/requirements.txt; the arguments go to Python as they are.
#
# The environment is made at the first call, in a cache directory named by the checksum of that file, and reused. Nothing
# is installed into the system.
#
#   scripts/python.sh tests/paho.py 127.0.0.1:1883
#   scripts/python.sh --version
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/millstream
SUM=$(sha256sum "$HERE/python/requirements.txt")
ENVIRONMENT=$CACHE/python-${SUM:0:16}

if [ ! -e "$ENVIRONMENT/complete" ]; then
  mkdir -p "$CACHE"
  (
    # Several tests may come here at once.
    flock 9
    [ ! -e "$ENVIRONMENT/complete" ] || exit 0
    python3 -c 'import ensurepip, venv' 2>/dev/null || {
      echo "python.sh: Python's venv module is missing (Debian: apt-get install python3-venv)" >&2
      exit 1
    }
    rm -rf "$ENVIRONMENT"
    python3 -m venv "$ENVIRONMENT" >&2
    "$ENVIRONMENT/bin/pip" install --quiet --requirement "$HERE/python/requirements.txt" >&2
    touch "$ENVIRONMENT/complete"
  ) 9>"$CACHE/.python.lock"
fi

exec "$ENVIRONMENT/bin/python" "$@"
