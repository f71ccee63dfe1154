"""Merge the measures of one package: merge.py PACKAGE

Writes merged/PACKAGE.json: sums, and the most complex function.
"""

import json
import sys
from pathlib import Path


def main(package):
    modules = [json.loads(path.read_text("utf-8")) for path in sorted(Path("measures", package).glob("*.json"))]
    functions = [(number, f"{m['module']}:{name}") for m in modules for name, number in m["functions"].items()]
    merged = {
        "package": package,
        "modules": len(modules),
        "lines": sum(m["lines"] for m in modules),
        "tokens": sum(m["tokens"] for m in modules),
        "functions": len(functions),
        "complexity": sum(number for number, _ in functions),
        "most_complex": max(functions, default=(0, "-")),
    }
    Path("merged").mkdir(exist_ok=True)
    Path("merged", f"{package}.json").write_text(json.dumps(merged), "utf-8")
    print(f"{package}: {len(modules)} modules, {merged['tokens']} tokens")


main(*sys.argv[1:])
