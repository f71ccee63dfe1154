"""Make report.txt of the merged measures: a line for each package, the largest first, and their sum."""

import json
from pathlib import Path

FORM = "{:<16} {:>7} {:>8} {:>9} {:>9} {:>10}  {}"


def line(p):
    mean = p["complexity"] / p["functions"] if p["functions"] else 0
    number, name = p["most_complex"]
    return FORM.format(p["package"], p["modules"], p["lines"], p["tokens"], p["functions"], f"{mean:.2f}", f"{number} {name}")


def main():
    merged = [json.loads(path.read_text("utf-8")) for path in Path("merged").glob("*.json")]
    merged.sort(key=lambda p: -p["tokens"])
    total = {key: sum(p[key] for p in merged) for key in ("modules", "lines", "tokens", "functions", "complexity")}
    total |= {"package": "total", "most_complex": max(p["most_complex"] for p in merged)}
    head = FORM.format("package", "modules", "lines", "tokens", "functions", "complexity", "most complex function")
    Path("report.txt").write_text("\n".join([head, *map(line, merged), line(total)]) + "\n", "utf-8")


main()
