#!/bin/sh
# Token and complexity statistics of every module of Python's standard library, as tasks of a queue: demo.sh DIRECTORY [PACKAGE ...]
# Works in DIRECTORY alone, which it makes; with PACKAGEs only these are measured. Needs `fsqdo` and `python` on the PATH.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$1
shift
mkdir -p "$(dirname "$work")"
mkdir "$work"
cp "$here"/*.py "$work"
cd "$work"

# Queues here, and no configuration file: the demo is the same for everybody.
FSQDO_DIR=$PWD/queues
FSQDO_CONFIG=/dev/null
export FSQDO_DIR FSQDO_CONFIG

say() {
    echo
    printf '# %s\n' "$@"
}

# Show a command as one would type it, then run it.
run() {
    printf '$ %s\n' "$1"
    sh -c "$1"
}

say "The tasks: a command for each module; merges and a report that require others by name."
run "python list_tasks.py${*:+ $*} > tasks.jsonl"
run "grep -m 2 -n '' tasks.jsonl; tail -n 1 tasks.jsonl | cut -c 1-120"

say "Into the queue with them. This makes the queue, too, and prints the ids."
run "fsqdo load --json stdlib tasks.jsonl"

say "One worker with as many slots as this machine has cores; it ends when nothing is left that it can run."
run "fsqdo do stdlib -j auto"

say "Most succeeded. Some failed, so what requires them waits, blocked."
run "fsqdo list"
run "fsqdo tasks stdlib --state Failed"
run "fsqdo tasks stdlib --blocked"

say "What did the first of them say?"
failed=$(fsqdo tasks stdlib --state Failed --ids | head -n 1)
run "fsqdo log stdlib $failed"

say "measure.py takes source text for ASCII. These modules are not: one letter in a comment is enough." \
    "Python's own rule (PEP 263: UTF-8, or what the file declares) is what tokenize.open follows. Fix that:"
run "sed 's/open(path, encoding=\"ascii\")/tokenize.open(path)/' measure.py > fixed && mv fixed measure.py"

say "Failed tasks back to pending, and two workers in the background for a change."
run "fsqdo retry stdlib"
run "fsqdo launch stdlib 2 --wait"

say "All that was blocked has run by itself. The result, and where the queue stands:"
run "cat report.txt"
run "fsqdo status stdlib"

printf '\n# All of it is in %s\n' "$PWD"
printf '# The queue is plain files: ls -R queues/stdlib | less\n'
