#!/bin/sh
# Make a virtual environment with pip in it: venv.sh FOLDER
set -eu

folder=$1
here=$(dirname "$0")
say() { printf '%s\n' "$*" >&2; }

python=
for candidate in ${PYTHON:-} python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    say "Python 3.11 or newer is needed; Debian 12 and Ubuntu 24.04 have it as python3:"
    say "    sudo apt-get install --no-install-recommends python3 python3-venv"
    exit 1
fi
say "Making $folder with $("$python" --version) ($python)"

# Debian's python3 has no ensurepip without python3-venv; a pip outside can fill the environment as well.
if "$python" -c 'import ensurepip' 2>/dev/null; then
    "$python" -m venv --clear "$folder"
elif "$python" -m venv --clear --without-pip "$folder" &&
    "$python" -m pip --python "$folder/bin/python" install -q --ignore-installed pip 2>/dev/null; then
    :
else
    sh "$here/debian.sh" python3-venv
    "$python" -m venv --clear "$folder"
fi
