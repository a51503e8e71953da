#!/bin/sh
# Make a virtual environment with pip in it: venv.sh FOLDER
# Without FOLDER: print the Debian packages that are needed to make one.
set -eu

say() { printf '%s\n' "$*" >&2; }

# A Python that is new enough; PYTHON=… in the environment is tried first.
python=
for candidate in ${PYTHON:-} python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done

if [ $# -eq 0 ]; then
    # Debian's Python has no ensurepip, and so no venv with pip, before python3-venv is there.
    "${python:-false}" -c 'import ensurepip, venv' 2>/dev/null || echo python3 python3-venv
    exit 0
fi

if [ -z "$python" ]; then
    say "Python 3.11 or newer is needed (Debian 12 and Ubuntu 24.04 have it); PYTHON=/path/to/python3 make … names one."
    exit 1
fi
say "Making $1 with $("$python" --version) ($python)"
"$python" -m venv --clear "$1"
