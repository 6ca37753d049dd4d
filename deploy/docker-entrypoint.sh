#!/bin/sh
# The entrypoint of the image: creates the API keys that are missing, then starts the command.
#
# .env is a link to a file in a volume. The first start writes a new MES_API_KEY into it, unless
# MES_API_KEY is set; an existing file is left as it is, also an empty one. A missing keys file is
# created without keys, so that `mes key new` can add some.
set -eu
umask 077

# Write standard input to a new file. It has its name only when it is complete.
create() {
    if ! { cat > "$1.new" && mv "$1.new" "$1"; }; then
        echo "mes: user $(id -u) cannot create $1; make this user the owner of $(dirname "$1")" >&2
        exit 1
    fi
}

# An empty variable would hide the key in .env.
[ -n "${MES_API_KEY:-}" ] || unset MES_API_KEY

key_file=$(readlink .env || echo .env)
if [ -z "${MES_API_KEY:-}" ] && [ ! -e "$key_file" ]; then
    key=$(head -c 24 /dev/urandom | od -A n -v -t x1 | tr -d ' \n')
    echo "MES_API_KEY=$key" | create "$key_file"
    echo "mes: created an API key; docker compose exec mes cat .env prints it" >&2
fi
if [ -n "${MES_API_KEYS_FILE:-}" ] && [ ! -e "$MES_API_KEYS_FILE" ]; then
    echo '{"keys": []}' | create "$MES_API_KEYS_FILE"
fi

exec "$@"
