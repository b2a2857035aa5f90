#!/bin/sh
# Write the accounts from the environment, then become the Redis server; arguments go to it.
set -eu

refuse() {
    echo "redis: $1" >&2
    exit 2
}

password=${REDIS_PASSWORD:-}
unset REDIS_PASSWORD
[ -n "$password" ] || refuse "REDIS_PASSWORD is missing: give a random one of 16 characters or more"
[ "${#password}" -ge 16 ] || refuse "REDIS_PASSWORD has ${#password} characters: 16 are the least"
case $password in
    *change*me* | *CHANGE*ME* | *password* | *secret*)
        refuse "REDIS_PASSWORD looks like an example: give a random one" ;;
esac

# The file holds a digest, not the password. `ogent` may use all keys and channels, and no command
# that administers the server; `health` may ask whether the server lives, and nothing else.
digest=$(printf '%s' "$password" | sha256sum | cut -d ' ' -f 1)
accounts=${TMPDIR:-/tmp}/ogent-users.acl
umask 077
cat > "$accounts" <<ACCOUNTS
user default off
user ogent on #$digest ~* &* +@all -@admin -@dangerous +info
user health on nopass resetkeys resetchannels -@all +ping
ACCOUNTS

exec redis-server "$(dirname "$0")/redis.conf" --aclfile "$accounts" "$@"
