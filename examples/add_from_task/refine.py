"""Integrate sqrt over one interval, or give its halves to the queue this task is from: refine.py A B

The variables FSQDO_DIR and FSQDO_QUEUE in a task's environment name its own queue.
"""

import math
import os
import sys
from pathlib import Path

import fsqdo

TOLERANCE = 1e-5


def simpson(a, b):
    return (math.sqrt(a) + 4 * math.sqrt((a + b) / 2) + math.sqrt(b)) * (b - a) / 6


def main(a, b):
    middle = (a + b) / 2
    halves = simpson(a, middle) + simpson(middle, b)
    if abs(halves - simpson(a, b)) > TOLERANCE * (b - a):
        q = fsqdo.connect(os.environ["FSQDO_QUEUE"])
        q.add_multiple([f"python refine.py {a!r} {middle!r}", f"python refine.py {middle!r} {b!r}"])
    else:
        # Named by the task, so that an attempt that was interrupted and run again does not count twice.
        Path("parts").mkdir(exist_ok=True)
        Path("parts", os.environ["FSQDO_TASK_ID"]).write_text(f"{halves!r}\n")


main(*map(float, sys.argv[1:]))
