#!/bin/sh
# Priorities: larger numbers run earlier, whenever they were added; negative ones wait until nothing else is there.
set -eu

# Three ordinary tasks, two that can wait, and one that cannot.
printf 'echo ordinary %s >> order.txt\n' 1 2 3 | fsqdo load priorities -
printf 'echo whenever %s >> order.txt\n' 1 2 | fsqdo load --priority -10 priorities -
fsqdo add priorities "echo urgent >> order.txt" --priority 100

# A change of mind: the third ordinary one before the other two. It says how many tasks it changed.
fsqdo reprioritize priorities 50 --match "ordinary 3"

rm -f order.txt
fsqdo do priorities
cat order.txt
