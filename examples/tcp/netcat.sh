#!/bin/sh
# Sends each argument as a message with netcat, and prints the replies. One line of the protocol for each message:
#   <client-id> <seq> <length in bytes>
#   <the message>
#
#   ./netcat.sh sensor7 hello 'a second message'
#
# HOST and PORT name the server. Every run numbers from 1, so it uses an epoch: the time in nanoseconds or seconds.
set -eu
client=$1
shift
{
    printf 'HELLO %s epoch=%s\n' "$client" "${EPOCH:-$(date +%s)}"
    seq=0
    for message in "$@"; do
        seq=$((seq + 1))
        printf -- '- %s %s\n%s\n' "$seq" "$(printf %s "$message" | wc -c | tr -d ' ')" "$message"
    done
    printf 'BYE\n'
} | nc "${HOST:-127.0.0.1}" "${PORT:-8084}"
