#!/bin/sh
# compose_env.sh FILE: write FILE with random secrets, readable by its owner alone.
# A file that is there is left as it is: running containers know its secrets.
set -eu
file=$1
if [ -e "$file" ]; then
    exit 0
fi

secret() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

umask 077
sed -e "s/^ADMIN_PASSWORD=.*/ADMIN_PASSWORD=$(secret)/" \
    -e "s/^AGENT_PASSWORD=.*/AGENT_PASSWORD=$(secret)/" \
    -e "s/^REDIS_PASSWORD=.*/REDIS_PASSWORD=$(secret)/" \
    .env.example > "$file.part"
mv "$file.part" "$file"
echo "$file: written with random secrets"
