#!/bin/sh
# A task that adds tasks to its own queue: the integral of sqrt from 0 to 1, refined where it is not yet exact enough.
set -eu
cp "$(dirname "$0")/refine.py" .

# One task to begin with; the worker goes on until the queue is drained, whoever adds to it.
fsqdo add refine "python refine.py 0 1"
fsqdo do refine -j 2
fsqdo status refine

cat parts/* | python -c 'import math, sys; print("integral: %.5f" % math.fsum(float(part) for part in sys.stdin.read().split()))'
