"""Groups of commands, and for each group a merge that requires its commands: 4 groups of 5 here, 32 of 25 in earnest."""

import sys
from pathlib import Path

import fsqdo

GROUPS, COMMANDS = 4, 5

# Something to work on. One input is broken, as one always is.
for group in range(GROUPS):
    for n in range(COMMANDS):
        text = "oops" if (group, n) == (3, 1) else str(10 * group + n + 1)
        Path(f"input.{group}.{n}").write_text(text + "\n")

q = fsqdo.create("extract", max_retries=0)
for group in range(GROUPS):
    ids = q.add_multiple(f"expr $(cat input.{group}.{n}) '*' 2 > extract.{group}.{n}" for n in range(COMMANDS))
    q.add(f"cat extract.{group}.* | sort -n | tail -n 1 > merge.{group}", requires=ids, name=f"merge {group}")

# Urgent work may come in between at any time, from any process.
q.add("date > calibrated", priority=100)

q.do(slots=2)
print(q)
for task in q.tasks(state="Failed"):
    print(f"{task.id}: {task.task}: {q.log(task.id).decode().strip()}")
print("blocked:", *(task.name for task in q.tasks(blocked=True)))

# Debug, fix, retry. The merge that was blocked runs by itself once what it requires has succeeded.
Path("input.3.1").write_text("32\n")
print(q.retry(), "task reset to pending")
q.do(slots=2)
print(q)
print("largest of each group:", *(Path(f"merge.{group}").read_text().strip() for group in range(GROUPS)))
sys.exit(q.status()["ntasks"]["Succeeded"] != GROUPS * (COMMANDS + 1) + 1)
