#!/bin/sh
# make_venv.sh FOLDER: make a virtual environment with the first Python that is new enough.
# PYTHON, where it is set, is the only one tried.
set -eu
folder=$1

new_enough() {
    # Run it: a name on PATH may be a version manager's shim with nothing behind it.
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

for python in ${PYTHON:-python3.11 python3.12 python3.13 python3 python3.14}; do
    if new_enough "$python"; then
        echo "Making $folder with $("$python" --version) ..."
        if "$python" -m venv --clear "$folder"; then
            exit 0
        fi
        rm -rf "$folder"
        echo "make: $python could not make a virtual environment." >&2
        echo "make: on Debian and Ubuntu, its part is a package of its own: apt install python3-venv" >&2
        exit 1
    fi
done

tried=${PYTHON:-python3}
found=$("$tried" --version 2>/dev/null) || found=none
echo "make: Ogent needs Python 3.11 or newer; $tried is: $found." >&2
echo "make: install one, or name it: make PYTHON=/path/to/python3.11" >&2
exit 1
