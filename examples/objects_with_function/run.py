"""Dicts as tasks, a function that does them, and what it returned: integrals of some functions by Simpson's rule."""

import math

import fsqdo


def integrate(task):
    """Called with each task exactly as it was added; what it returns is kept, an exception is a failure."""
    function = getattr(math, task["function"])
    step = (task["b"] - task["a"]) / task["steps"]
    inner = sum((4 if i % 2 else 2) * function(task["a"] + i * step) for i in range(1, task["steps"]))
    return (function(task["a"]) + inner + function(task["b"])) * step / 3


q = fsqdo.create("integrals")
q.add_multiple({"function": name, "a": 0, "b": math.pi, "steps": 100} for name in ("sin", "cos", "exp", "sqrt", "log"))

q.do(func=integrate)

# `results` yields (id, what was returned); a task's own dict is in its row.
for task_id, result in q.results():
    print(f"{q.task(task_id).task['function']:5} {result:.6f}")

# log(0) has no value. The traceback is in the story beside the failed task, and in `show`.
for task in q.tasks(state="Failed"):
    print(f"{task.task['function']:5} failed: {q.show(task.id)['attempts'][-1]['reason']}")
