#!/bin/sh
# Runs a command that cancels jobs; that some of them have ended already is no error.
#
#   cancel.sh PATTERN COMMAND ID...    PATTERN (grep -E, any case): what COMMAND says of a job that it no longer has
pattern=$1
shift
case $# in 0 | 1) exit 0 ;; esac
said=$(LC_ALL=C "$@" 2>&1)
code=$?
[ -z "$said" ] || printf '%s\n' "$said" >&2
[ "$code" -ne 0 ] || exit 0
# Something else was wrong if it died without a word, or said anything that is not this.
[ -n "$said" ] || exit "$code"
if printf '%s\n' "$said" | grep -v '^[[:space:]]*$' | grep -Eivq -e "$pattern"; then exit "$code"; fi
