#!/bin/sh
# Two shell workers on one queue: they share its tasks, and fsqdo reads what they did like any other worker's.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

for n in 1 2 3 4 5 6 7 8 9; do echo "echo \"nine times $n is \$((9 * $n))\""; done | fsqdo load by-hand -
fsqdo add by-hand "ls \"/there is no such directory\""

sh "$here/worker.sh" "$FSQDO_DIR/by-hand" &
sh "$here/worker.sh" "$FSQDO_DIR/by-hand"
wait

fsqdo status by-hand
fsqdo log by-hand 7
fsqdo log by-hand 10
