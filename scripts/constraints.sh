#!/bin/sh
# constraints.sh UV: write constraints.txt: one version of everything, for every Python and system.
# The file names no index and no host, so that it serves wherever packages come from.
set -eu
uv=$1
made=$(mktemp)
trap 'rm -f "$made"' EXIT

# The three distributions resolve each other from this checkout and are no constraint themselves.
printf '%s\n' '-e ./sdk' '-e ./controller_service' '-e ./agent_service' |
    "$uv" pip compile --quiet --universal --python-version 3.11 --upgrade \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
        --output-file "$made" - requirements-dev.in
grep -v -e '^-e ' -e '^\./' "$made" > constraints.txt
echo "constraints.txt names $(grep -c == constraints.txt) versions"
