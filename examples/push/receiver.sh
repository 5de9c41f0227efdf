#!/usr/bin/env bash
# An endpoint of a push subscription: verifies each request (Standard Webhooks, v1), and acts on each message once. It serves
# one request after another and needs openssl and OpenBSD's nc. While openssl runs, other users of the machine can read the
# key in its arguments.
#
#   SECRET=whsec_… ./receiver.sh [PORT]
set -euo pipefail
set -f # no signature is a pattern of file names
KEY=$(printf %s "${SECRET#whsec_}" | base64 -d | od -An -v -tx1 | tr -d ' \n')
TOLERANCE=${TOLERANCE:-300} # seconds, both ways
MAX_BODY=2097152
work=$(mktemp -d)
trap 'kill $(jobs -p) $! 2>/dev/null; rm -rf "$work"' EXIT
trap exit INT TERM
mkfifo "$work/answers"
touch "$work/seen" # a real one remembers ids in its database, in the transaction of what it does

hash() { openssl dgst -sha256 "$@"; }

# is_genuine ID TIMESTAMP SIGNATURES: verifies the body in $work/body.
is_genuine() {
  local age expected signature
  [[ $2 =~ ^[0-9]{1,12}$ ]] || return 1
  age=$(($(date +%s) - 10#$2))
  [ "${age#-}" -le "$TOLERANCE" ] || return 1
  expected=v1,$({ printf '%s.%s.' "$1" "$2"; cat "$work/body"; } | hash -mac HMAC -macopt "hexkey:$KEY" -binary | base64)
  for signature in $3; do
    # Of hashes, how long a comparison takes reveals nothing.
    [ "$(printf %s "$signature" | hash)" != "$(printf %s "$expected" | hash)" ] || return 0
  done
  return 1
}

# Reads a request, prints the answer; messages go to file descriptor 3.
handle() {
  local name value id='' timestamp='' signatures='' length=-1 status='204 No Content'
  read -r name
  while IFS=': ' read -r name value && [ "$name" != $'\r' ]; do
    value=${value%$'\r'}
    case $(printf %s "$name" | tr '[:upper:]' '[:lower:]') in
      webhook-id) id=$value ;;
      webhook-timestamp) timestamp=$value ;;
      webhook-signature) signatures=$value ;;
      content-length) length=$value ;;
    esac
  done
  if ! [[ $length =~ ^[0-9]{1,7}$ ]] || [ "$length" -gt "$MAX_BODY" ]; then
    status='413 Content Too Large'
  else
    head -c "$length" >"$work/body"
    if ! is_genuine "$id" "$timestamp" "$signatures"; then
      status='401 Unauthorized'
    elif ! grep -Fxq -e "$id" "$work/seen"; then
      { printf '%s ' "$id" && cat "$work/body" && echo; } >&3 && printf '%s\n' "$id" >>"$work/seen" \
        || status='500 Internal Server Error'
    fi
  fi
  printf 'HTTP/1.1 %s\r\nconnection: close\r\n\r\n' "$status"
}

exec 3>&1
while :; do
  nc -N -l 127.0.0.1 "${1:-9000}" <"$work/answers" | handle >"$work/answers" &
  wait
done
