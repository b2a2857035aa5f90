#!/bin/sh
# compose.sh ARGUMENTS...: run compose on this repository's docker-compose.yml.
# COMPOSE names the command where it is not Docker's own, such as `podman-compose`.
set -eu
compose=${COMPOSE:-docker compose}
if [ "$compose" = "docker compose" ] && ! docker info >/dev/null 2>&1; then
    echo "compose: no Docker engine answers. Start one, or name another compose command:" >&2
    echo "compose: make compose-up COMPOSE=podman-compose" >&2
    exit 1
fi
# shellcheck disable=SC2086 - a command may have several words
exec $compose "$@"
