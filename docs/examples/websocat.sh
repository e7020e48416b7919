#!/bin/sh
# Talks to a room from a terminal: ./websocat.sh ROOM [OPTION…]
# What the room gets is printed, one JSON object a line; each line that you type is sent, such as {"payload":{"text":"hi"}}.
# TOKEN is your token, if chat-api asks for one. Options are websocat's: `-n1` sends one line and prints one answer.
set -eu

room=$1
shift
if [ -n "${TOKEN:-}" ]; then set -- "$@" --header "Authorization: Bearer $TOKEN"; fi
exec websocat "ws://localhost:8080/api/chat-api/ws/$room" "$@"
