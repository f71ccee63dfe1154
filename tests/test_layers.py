"""The structure of the package: who may import whom, who may change a queue's tree, and how little a worker imports."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fsqdo
from fsqdo.store.system import System

PACKAGE = Path(fsqdo.__file__).parent

# Each module imports only what stands before it; a package stands for all that is in it.
ORDER = [
    "errors",
    "ids",
    "names",
    "sizes",
    "template",
    "rules",
    "texts",
    "taskoptions",
    "task",
    "outcome",
    "settings",
    "places",
    "store",
    "merged",
    "journal",
    "packs",
    "mounts",
    "finals",
    "packing",
    "unpacking",
    "requirements",
    "misplaced",
    "leftovers",
    "liveness",
    "recovery",
    "litter",
    "merging",
    "tidy",
    "claims",
    "policy",
    "limits",
    "member",
    "allocation",
    "workeroptions",
    "guard",
    "failures",
    "inputs",
    "load",
    "rows",
    "upkeep",
    "holder",
    "selection",
    "bulk",
    "show",
    "signals",
    "spawn",
    "runner",
    "function_child",
    "functions",
    "resources",
    "durations",
    "fit",
    "health",
    "checks",
    "recorder",
    "slots",
    "held",
    "inline",
    "worker",
    "walltime",
    "batch",
    "configfile",
    "config",
    "jobrecords",
    "jobcache",
    "jobwork",
    "jobs",
    "plan",
    "workerwords",
    "launch",
    "demand",
    "shapemodel",
    "shape",
    "scaleguard",
    "autoscale",
    "explain",
    "misfits",
    "queue",
    "floors",
    "figures",
    "bench",
    "cli",
]
# Changes files of its own beside the queues, to measure how long that takes; it knows nothing of queues.
RAW = "floors"
PURE = (
    "errors",
    "ids",
    "names",
    "sizes",
    "template",
    "rules",
    "texts",
    "taskoptions",
    "task",
    "outcome",
    "settings",
    "walltime",
    "shapemodel",
    "shape",
    "figures",
)

CHANGES = frozenset(
    [
        "rename",
        "renames",
        "replace",
        "link",
        "symlink",
        "unlink",
        "remove",
        "mkdir",
        "makedirs",
        "rmdir",
        "removedirs",
        "mkfifo",
        "mknod",
        "fsync",
        "fdatasync",
        "truncate",
        "ftruncate",
        "utime",
        "chmod",
        "chown",
        "lchown",
        "setxattr",
        "copy_file_range",
        "sendfile",
    ]
)


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the package as (dotted name below fsqdo, syntax tree)."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text(encoding="utf-8"), str(path))


def layer(module: str) -> str:
    """The entry of ORDER that a module belongs to."""
    return module.partition(".")[0]


def for_typing_only(tree: ast.Module) -> set[ast.AST]:
    """What stands under `if TYPE_CHECKING`."""
    blocks = [
        n for n in ast.walk(tree) if isinstance(n, ast.If) and isinstance(n.test, ast.Name) and n.test.id == "TYPE_CHECKING"
    ]
    return {inner for block in blocks for inner in ast.walk(block)}


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """What a module imports when it runs, now or later, as (module, line)."""
    left_out = for_typing_only(tree)
    for node in ast.walk(tree):
        if node in left_out:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or "", node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def test_every_module_has_its_place() -> None:
    found = {layer(name) for name, _ in sources()} - {"__init__", "__main__"}
    assert found == set(ORDER)
    assert len(ORDER) == len(set(ORDER))


def test_imports_point_upward_only() -> None:
    wrong = []
    for name, tree in sources():
        if layer(name) not in ORDER:
            continue  # the package itself hands out everything
        for imported, line in imports(tree):
            parts = imported.split(".")
            if parts[0] != "fsqdo" or len(parts) == 1:
                continue
            if parts[1] in ORDER and layer(name) != parts[1] and ORDER.index(parts[1]) > ORDER.index(layer(name)):
                wrong.append(f"{name}:{line} imports {parts[1]}")
    assert not wrong


def test_pure_modules_touch_no_files() -> None:
    wrong = []
    for name, tree in sources():
        if name in PURE:
            opens = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "open"]
            wrong += [f"{name}:{node.lineno} opens a file" for node in opens]
            wrong += [
                f"{name}:{line} {m}"
                for m, line in imports(tree)
                if m in ("pathlib", "shutil", "tempfile", "subprocess", "threading")
            ]
    assert not wrong


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Calls of the form `module.function(…)`, as ("module.function", node)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            yield f"{node.func.value.id}.{node.func.attr}", node


def is_devnull(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "devnull"


def test_only_the_store_changes_a_tree() -> None:
    wrong = []
    for name, tree in sources():
        if layer(name) in ("store", RAW):
            continue
        for called, node in calls(tree):
            module, _, function = called.partition(".")
            if module == "os" and function in CHANGES:
                wrong.append(f"{name}:{node.lineno} {called}")
            flags = {n.attr for argument in node.args[1:] for n in ast.walk(argument) if isinstance(n, ast.Attribute)}
            if called == "os.open" and flags & {"O_WRONLY", "O_RDWR", "O_CREAT"} and not is_devnull(node.args[0]):
                wrong.append(f"{name}:{node.lineno} opens a file for writing")
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "open"
                and not is_devnull(node.args[0])
            ):
                mode = node.args[1] if len(node.args) > 1 else next((k.value for k in node.keywords if k.arg == "mode"), None)
                if mode is not None and not (isinstance(mode, ast.Constant) and set(str(mode.value)) <= set("rbt")):
                    wrong.append(f"{name}:{node.lineno} opens a file for writing")
            if isinstance(node, ast.Attribute) and node.attr in ("write_text", "write_bytes", "touch_path"):
                wrong.append(f"{name}:{node.lineno} {node.attr}")
        wrong += [f"{name}:{line} imports {m}" for m, line in imports(tree) if m in ("shutil", "pathlib")]
        # Locks save work and decide nothing; the pass has the only one.
        wrong += [f"{name}:{line} imports {m}" for m, line in imports(tree) if m == "filelock" and name != "upkeep"]
    assert not wrong


def test_what_changes_files_beside_the_queues_knows_no_queue() -> None:
    ((_, tree),) = [(name, tree) for name, tree in sources() if name == RAW]
    assert not [imported for imported, _ in imports(tree) if imported.startswith("fsqdo")]
    users = {name for name, tree in sources() for imported, _ in imports(tree) if imported == f"fsqdo.{RAW}"}
    assert users == {"bench"}


def test_the_store_goes_through_the_seam() -> None:
    """What is not called through `fs`, no fault test reaches."""
    seam = {name for name in vars(System) if not name.startswith("_")}
    wrong = []
    for name, tree in sources():
        if layer(name) == "store" and name != "store.system":
            for called, node in calls(tree):
                module, _, function = called.partition(".")
                if (
                    module == "os" and (function in CHANGES | seam or function in ("stat", "scandir", "walk", "access"))
                ) or module == "shutil":
                    wrong.append(f"{name}:{node.lineno} {called}")
                if module == "fs":
                    assert function in seam, f"{name}:{node.lineno} calls fs.{function}"
                if module == "time":
                    wrong.append(f"{name}:{node.lineno} {called}")
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
                    wrong.append(f"{name}:{node.lineno} open")
                # A name bound at import would not see what a test puts there.
                if (
                    isinstance(node, ast.Assign)
                    and isinstance(node.value, ast.Attribute)
                    and getattr(node.value.value, "id", "") == "fs"
                ):
                    wrong.append(f"{name}:{node.lineno} keeps fs.{node.value.attr}")
    assert not wrong


def test_no_bare_except_no_assert_no_hidden_errors() -> None:
    wrong = []
    for name, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                wrong.append(f"{name}:{node.lineno} bare except")
            if isinstance(node, ast.Assert):
                wrong.append(f"{name}:{node.lineno} assert at run time")
    assert not wrong


HEAVY = [
    "click",
    "yaml",
    "asyncio",
    "logging.handlers",
    "logging.config",
    "http",
    "urllib.request",
    "socketserver",
    "ssl",
    "jinja2",
    "starlette",
    "flask",
    "multiprocessing",
    "concurrent.futures",
    "xml",
    "unittest",
    "pdb",
    "difflib",
    "argparse",
    "numpy",
    "sqlite3",
    "fsqdo.cli",
    "fsqdo.config",
    "fsqdo.launch",
    "fsqdo.batch",
    "fsqdo.bulk",
    "fsqdo.selection",
    "fsqdo.show",
    "fsqdo.load",
]

WORKER = """
import sys
from fsqdo.store import Store
from fsqdo.worker import Worker
from fsqdo.workeroptions import WorkerOptions
Worker(Store(sys.argv[1]), WorkerOptions(slots=2, idle_s=0.0)).run()
print("\\n".join(sys.modules))
"""


@pytest.fixture(params=["alone", "beside another worker"])
def worked(root: Path, request: pytest.FixtureRequest) -> set[str]:
    """The modules that a worker has imported after it ran two commands."""
    queue = fsqdo.create("w")
    if request.param != "alone":
        Path(queue.directory, "running", "other-1-abc").mkdir()
    queue.add("true")
    queue.add("exit 3; # a shell")
    script = WORKER
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    ran = subprocess.run(
        [sys.executable, "-S", "-c", script, queue.directory], env=environment, capture_output=True, text=True, check=False
    )
    if ran.returncode and "filelock" in ran.stderr:  # installed where only `site` finds it
        ran = subprocess.run(
            [sys.executable, "-c", script, queue.directory], env=environment, capture_output=True, text=True, check=False
        )
    assert ran.returncode == 0, ran.stderr
    assert queue.status()["ntasks"]["Succeeded"] == 1 and queue.status()["ntasks"]["Failed"] == 1
    return set(ran.stdout.split())


def test_the_worker_imports_little(worked: set[str]) -> None:
    assert sorted(worked & set(HEAVY)) == []
    assert "fsqdo.worker" in worked


def test_import_of_the_package_is_light() -> None:
    code = "import sys; before = set(sys.modules); import fsqdo; print(' '.join(set(sys.modules) - before))"
    ran = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not set(ran.stdout.split()) & set(HEAVY)
    assert len(ran.stdout.split()) < 40
