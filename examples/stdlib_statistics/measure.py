"""Measure one module of the standard library: measure.py PACKAGE MODULE

Writes measures/PACKAGE/MODULE.json: lines, tokens, and the cyclomatic complexity of each function.
"""

import ast
import json
import sys
import sysconfig
import tokenize
from pathlib import Path

LOOPS = (ast.For, ast.AsyncFor, ast.While, ast.comprehension)
DECISIONS = (*LOOPS, ast.If, ast.IfExp, ast.ExceptHandler, ast.Assert, ast.match_case)
LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def complexity(function):
    """McCabe's number: 1, and 1 for each decision; functions inside are counted for themselves."""
    number = 1
    inside = list(ast.iter_child_nodes(function))
    while inside:
        node = inside.pop()
        if isinstance(node, FUNCTIONS):
            continue
        if isinstance(node, DECISIONS):
            number += 1
        elif isinstance(node, ast.BoolOp):
            number += len(node.values) - 1
        inside.extend(ast.iter_child_nodes(node))
    return number


def measure(path):
    with open(path, encoding="ascii") as file:
        lines = file.readlines()
    tokens = sum(token.type not in LAYOUT for token in tokenize.generate_tokens(iter(lines).__next__))
    functions = [node for node in ast.walk(ast.parse("".join(lines))) if isinstance(node, FUNCTIONS)]
    return {"lines": len(lines), "tokens": tokens, "functions": {f"{f.name}:{f.lineno}": complexity(f) for f in functions}}


def main(package, module):
    print(f"measuring {module}")
    measured = {"module": module, **measure(Path(sysconfig.get_path("stdlib"), module))}
    directory = Path("measures", package)
    directory.mkdir(parents=True, exist_ok=True)
    Path(directory, module.replace("/", ".") + ".json").write_text(json.dumps(measured), "utf-8")


main(*sys.argv[1:])
