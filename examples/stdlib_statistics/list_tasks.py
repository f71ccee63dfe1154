"""List the tasks of this example as JSON Lines for `fsqdo load --json`: list_tasks.py [PACKAGE ...]

One task measures one module of Python's standard library; one task a package merges its modules' measures and requires
them; the last one makes the report and requires all merges. Requirements are given by name: ids there are none yet.
"""

import json
import sys
import sysconfig
from pathlib import Path

LIBRARY = Path(sysconfig.get_path("stdlib"))
# Tests, installed packages, and the applications that come with the library.
NOT_THE_LIBRARY = {"test", "tests", "site-packages", "dist-packages", "__pycache__", "idlelib", "lib2to3", "turtledemo"}


def packages():
    """Return {package: its modules' paths relative to the library}; modules of no package are under `top-level`."""
    found = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        module = path.relative_to(LIBRARY)
        if NOT_THE_LIBRARY.isdisjoint(module.parts):
            package = module.parts[0] if len(module.parts) > 1 else "top-level"
            found.setdefault(package, []).append(module.as_posix())
    return found


def main(wanted):
    merges = []
    for package, modules in packages().items():
        if wanted and package not in wanted:
            continue
        for module in modules:
            print(json.dumps({"task": f"python measure.py {package} {module}", "name": module}))
        merges.append(f"merge {package}")
        print(json.dumps({"task": f"python merge.py {package}", "name": merges[-1], "requires": modules}))
    # Urgent once it can run: its priority puts it before whatever else is pending by then.
    print(json.dumps({"task": "python report.py", "name": "report", "requires": merges, "priority": 10}))


main(sys.argv[1:])
