#!/bin/sh
# Healthy: the server answers an account that may do nothing but ask.
set -eu
answer=$(redis-cli --user health --pass any --no-auth-warning ping)
[ "$answer" = PONG ]
