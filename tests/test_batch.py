"""The scripts of the batch systems: what they look like (golden files), and hostile values on their way into them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsqdo.batch import JobSpec, get_system
from fsqdo.config import SYSTEMS
from fsqdo.errors import ConfigError, InputError

GOLDEN = Path(__file__).parent / "golden/batch"
PREFIX = {
    "slurm": "#SBATCH",
    "pbs": "#PBS",
    "torque": "#PBS",
    "sge": "#$",
    "lsf": "#BSUB",
    "htcondor": "#HTCONDOR",
    "flux": "#flux:",
}
REAL = sorted(PREFIX)
AFTER = {"pbs": "12.server", "torque": "12.server", "flux": "ƒ2oLkTLb"}

HOSTILE = [
    "a b", "it's", 'a"b', "$(touch pwned)", "`touch pwned`", "$HOME", "$(DOLLAR)", "$TASK_ID", "%j%%", "{{command}}", "{{id}}",
    "a\nb", "x\n#SBATCH --exclusive", "x\n#PBS -q y", "x\n#$ -l y", "x\n #BSUB -q y", "x\n''flux: --nodes=9",
    "x\n\n# flux: -N9", "x\n#HTCONDOR queue 99", "queue 99", "a\\", "\\", "-n", "--", "*", "~", "#", "; touch pwned",
    "& touch pwned", "\u2028", "\r", "ü", "", " ", ":", ",", "packjob", "'''", "%I", "a|b", "!!", "EOF",
]  # fmt: skip
TEXT = st.sampled_from(HOSTILE) | st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20)


def spec_of(**changes: Any) -> JobSpec:
    fields: dict[str, Any] = {
        "name": "fsqdo-extract-7",
        "queue_dir": "/data/queues/extract",
        "command": ("/usr/bin/python3", "/opt/fsqdo", "do", "extract", "-j", "16"),
        "output_path": "/data/queues/extract/logs/job-7.log",
        "directory": "/data/run 1",
        "env": {"FSQDO_DIR": "/data/queues", "FSQDO_JOB": "7"},
        "slots": 16,
    }
    return JobSpec(**{**fields, **changes})


def case(system: str, name: str) -> JobSpec:
    """What the golden files are made from; a system that has no arrays or nodes gets what it has."""
    packed: dict[str, Any] = {"nodes": 3, "workers_per_node": 2, "cores_per_worker": 16, "walltime_s": 5400}
    if system == "htcondor":
        packed |= {"nodes": 1, "workers_per_node": 1}
    if system == "sge":
        packed |= {"directives": ("-pe mpi",)}
    again: dict[str, Any] = {"walltime_s": 90, "after": AFTER.get(system, "12"), "array": 4}
    if system == "flux":
        del again["array"]
    if system == "htcondor":
        del again["after"]
    own = {"htcondor": "+WantSpot = True", "sge": "-pe mpi* 96", "lsf": "-x", "pbs": "-l place=excl", "torque": "-n"}
    directive = own.get(system, "--exclusive")
    everything = {
        **packed, **again, "gpus_per_worker": 4, "mem_mb_per_worker": 2000, "account": "m1234", "batch_queue": "regular",
        "constraint": {"htcondor": 'HasGPU && Arch == "X86_64"'}.get(system, "gpu"), "directives": (directive,),
        "prologue": ("module load python", "ulimit -c 0"), "epilogue": ("echo the workers have ended",),
        "wrap": ("apptainer", "exec", "my image.sif"), "keep_env": False, "env": {"A": "it's $HOME\n#SBATCH --exclusive"},
    }  # fmt: skip
    return spec_of(**{"plain": {}, "packed": packed, "array": again, "everything": everything}[name])


# ---------------------------------------------------------------- golden files
@pytest.mark.parametrize("name", ["plain", "packed", "array", "everything"])
@pytest.mark.parametrize("system", REAL)
def test_the_scripts_are_these(system: str, name: str) -> None:
    """REWRITE_GOLDEN=1 writes them anew."""
    path = GOLDEN / f"{system}-{name}.sh"
    script = get_system(system).script(case(system, name))
    if os.environ.get("REWRITE_GOLDEN"):
        path.write_text(script)
    assert script == path.read_text()
    subprocess.run(["/bin/sh", "-n", str(path)], check=True)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_profile_can_have_a_script_of_its_own(system: str) -> None:
    template = "#!/bin/sh\n# {{name}} {{account}} {{walltime_s}}\n# {{constraint}}\n{{run}}\n"
    script = get_system(system).script(spec_of(template=template, account="m1", walltime_s=90))
    assert script.startswith("#!/bin/sh\n# fsqdo-")
    assert script.splitlines()[1].endswith(" m1 90") and script.splitlines()[2].startswith("cd -- '/data/run 1'")
    with pytest.raises(ConfigError, match="line 2: there is no variable 'nodse'"):
        get_system(system).script(spec_of(template="x\n{{nodse}}"))


@pytest.mark.parametrize("system", REAL)
def test_each_variable_of_the_page_is_there(system: str) -> None:
    page = (Path(__file__).parent.parent / "docs/batch.md").read_text()
    names = re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE)
    assert len(names) > 25
    get_system(system).script(spec_of(template="\n".join(f"{{{{{name}}}}}" for name in names)))


# ---------------------------------------------------------------- hostile values
def _directives(script: str, system: str) -> list[str]:
    """The lines that the system could take for its own."""
    if system == "flux":
        return [text for text in script.split("\n") if re.match(r"[^\w]*(flux|FLUX):", text)]
    return [text for text in script.split("\n") if text.lstrip().startswith(PREFIX[system])]


@pytest.mark.parametrize("system", REAL)
@given(data=st.data())
def test_no_value_makes_or_breaks_a_directive(system: str, data: st.DataObject) -> None:
    """Where any of them can stand at all, there are the lines of a harmless job, word for word but for that value."""
    field = data.draw(st.sampled_from(["name", "account", "batch_queue", "constraint", "output_path", "directives", "after",
                                       "directory", "queue_dir", "command", "env", "wrap", "mpirun", "epilogue"]))  # fmt: skip
    value = data.draw(TEXT)
    harmless = replace(case(system, "everything"), account="x", batch_queue="x", constraint="x", env={"A": "x"})
    changed: dict[str, Any] = {
        "env": {"A": value}, "command": ("x", value), "wrap": ("x", value), "mpirun": ("x", value), "directives": (value,),
        "output_path": "/x/" + value, "directory": "/x/" + value, "queue_dir": "/x/" + value, "epilogue": (": x",),
    }  # fmt: skip
    try:
        script = get_system(system).script(replace(harmless, **{field: changed.get(field, value)}))
    except InputError:
        return
    expected = _directives(get_system(system).script(harmless), system)
    found = _directives(script, system)
    if field == "directives" and system == "sge" and value.startswith("-pe"):
        return
    if field in ("directory", "queue_dir", "command", "env", "wrap", "mpirun", "epilogue"):
        assert found == expected
        return
    assert [re.split(r"[ =]", text)[:2] for text in found if value.strip() not in text] == [
        re.split(r"[ =]", text)[:2] for text, now in zip(expected, found, strict=True) if value.strip() not in now
    ]
    head = script.split("\n")[: script.split("\n").index(found[-1]) + 1]
    assert all(text.startswith("#") for text in head)
    assert all(text.isprintable() for text in found)


@pytest.fixture(scope="module")
def starters(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with what starts workers: each runs one of them, here."""
    bin_dir = tmp_path_factory.mktemp("bin")
    drop = {"flux": "shift", "srun": ":", "mpiexec": "shift 2", "blaunch": "shift 2"}
    for name, first in drop.items():
        path = bin_dir / name
        path.write_text(f'#!/bin/sh\n{first}\nwhile :; do case $1 in --*=*) shift ;; *) exec "$@" ;; esac; done\n')
        path.chmod(0o755)
    return f"{bin_dir}:/usr/local/bin:/usr/bin:/bin"


def _said(script: str, path: str, cwd: str, **env: str) -> list[bytes]:
    file = Path(cwd, "script.sh")
    file.write_bytes(os.fsencode(script))
    ran = subprocess.run(
        ["/bin/sh", str(file)], cwd="/", env={"PATH": path, **env}, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert ran.returncode == 7, (script, ran)
    return ran.stdout.split(b"\0")[:-1]


PRINT = ("/bin/sh", "-c", 'printf "%s\\0" "$@" "$V" "$PWD"; exit 7', "worker")


@pytest.mark.parametrize("system", SYSTEMS)
@given(words=st.lists(TEXT, max_size=3), value=TEXT, shape=st.sampled_from(["exec", "background", "several"]))
def test_any_text_reaches_the_worker_unchanged(starters: str, system: str, words: list[str], value: str, shape: str) -> None:
    several = {"nodes": 2, "directives": ("-pe mpi",) if system == "sge" else ()}
    more: dict[str, Any] = {"exec": {}, "background": {"epilogue": (": x",)}, "several": several}[shape]
    if system == "htcondor" and shape == "several":
        more = {}
    with tempfile.TemporaryDirectory() as cwd:
        spec = spec_of(directory=cwd, command=(*PRINT, *words), env={"V": value}, **more)
        said = _said(get_system(system).script(spec), starters, cwd)
        assert said == [os.fsencode(text) for text in (*words, value, cwd)]


@pytest.mark.parametrize("name", [text for text in HOSTILE if text.strip() and "/" not in text])
def test_a_hostile_directory_is_only_a_directory(tmp_path: Path, name: str) -> None:
    cwd = tmp_path / name
    cwd.mkdir()
    for system in SYSTEMS:
        if system != "flux":
            spec = spec_of(directory=str(cwd), command=PRINT, env={"V": ""})
            assert _said(get_system(system).script(spec), "/usr/bin:/bin", str(tmp_path)) == [b"", os.fsencode(cwd)]


def test_a_clean_environment_has_what_every_program_expects(tmp_path: Path) -> None:
    command = ("/bin/sh", "-c", 'printf "%s\\0" "$PATH" "$HOME" "$USER" "$LOGNAME"; exit 7')
    script = get_system("slurm").script(spec_of(directory=str(tmp_path), command=command, env={}, keep_env=False))
    (tmp_path / "s").write_text(script)
    ran = subprocess.run(["/bin/sh", str(tmp_path / "s")], env={}, capture_output=True, check=False)
    path, home, user, logname = ran.stdout.decode().split("\0")[:-1]
    assert "/bin" in path and home.startswith("/") and user == logname != ""


# ---------------------------------------------------------------- signals
WORKER = """trap 'echo got USR1' USR1
trap 'echo got TERM; exit 9' TERM
echo ready
while :; do sleep 0.05; done"""


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
@pytest.mark.parametrize(("last", "said"), [(signal.SIGTERM, "got TERM"), (signal.SIGUSR2, "got TERM")])
def test_signals_to_the_shell_reach_the_worker_and_its_code_is_kept(
    tmp_path: Path, shell: str, last: signal.Signals, said: str
) -> None:
    if not os.path.exists(shell):
        pytest.skip(f"there is no {shell}")
    spec = spec_of(directory=str(tmp_path), command=("/bin/sh", "-c", WORKER), epilogue=("echo epilogue",))
    (tmp_path / "s").write_text(get_system("slurm").script(spec))
    with subprocess.Popen([shell, str(tmp_path / "s")], stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "ready\n"
        for _ in range(3):
            job.send_signal(signal.SIGUSR1)
            assert job.stdout.readline() == "got USR1\n"
        job.send_signal(signal.SIGINT)  # for the whole group where it comes; the shell only must not die of it
        job.send_signal(last)
        assert job.stdout.read() == f"{said}\nepilogue\n"
        assert job.wait() == 9


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
@pytest.mark.parametrize("code", [0, 1, 127, 137])
def test_the_exit_code_is_that_of_the_workers(tmp_path: Path, shell: str, code: int) -> None:
    if not os.path.exists(shell):
        pytest.skip(f"there is no {shell}")
    spec = spec_of(directory=str(tmp_path), command=("/bin/sh", "-c", f"exit {code}"), epilogue=("false",))
    (tmp_path / "s").write_text(get_system("slurm").script(spec))
    assert subprocess.run([shell, str(tmp_path / "s")], check=False).returncode == code


# ---------------------------------------------------------------- what is refused, what is mended
@pytest.mark.parametrize(
    ("system", "changes"),
    [
        ("slurm", {"account": "a b"}), ("slurm", {"account": "-x"}), ("slurm", {"account": "a\nb"}),
        ("slurm", {"after": "5:6"}), ("slurm", {"output_path": "/a\\b"}), ("slurm", {"output_path": "/PackJob/x"}),
        ("slurm", {"directives": ("exclusive",)}),
        ("slurm", {"directives": ("--a\n#SBATCH --b",)}), ("slurm", {"directives": ("#SBATCH -x",)}),
        ("pbs", {"output_path": "/a b"}), ("pbs", {"output_path": "/a:b"}), ("pbs", {"constraint": "a b"}),
        ("sge", {"output_path": "/$HOME"}), ("sge", {"nodes": 2}), ("sge", {"after": "x"}), ("lsf", {"output_path": "/%J"}),
        ("lsf", {"constraint": 'a"b'}), ("flux", {"output_path": "/{{id}}"}), ("flux", {"array": 3}), ("flux", {"after": "no"}),
        ("htcondor", {"nodes": 2}), ("htcondor", {"after": "5@h"}), ("htcondor", {"directives": ("queue 5",)}),
        ("htcondor", {"directives": ("Queue = 5",)}), ("htcondor", {"directives": ("a = b\\",)}),
        ("htcondor", {"constraint": "x\\"}), ("slurm", {"constraint": ""}),
        ("slurm", {"nodes": 0}), ("slurm", {"array": 0}), ("slurm", {"cores_per_worker": 1.5}), ("slurm", {"wrap": ("a\0",)}),
    ],
)  # fmt: skip
def test_what_a_system_cannot_be_told_is_refused(system: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        get_system(system).script(spec_of(**changes))


@pytest.mark.parametrize(
    ("system", "name", "expected"),
    [
        ("pbs", "fsqdo-extract-12", "fsqdo-extrac-12"), ("pbs", "7:x/y z", "j7_x_y_z"), ("sge", "1a", "j1a"),
        ("torque", "ü", "j_"), ("slurm", "a b;c", "a_b_c"), ("pbs", "x" * 40, "x" * 15),
        ("pbs", "a-" + "9" * 20, "a-9999999999999"),
    ],
)  # fmt: skip
def test_names_are_mended(system: str, name: str, expected: str) -> None:
    lines = get_system(system).script(spec_of(name=name)).splitlines()
    assert any(re.split(r"[ =]", text)[-1] == expected for text in lines if text.startswith(PREFIX[system]))


@pytest.mark.parametrize(
    ("walltime_s", "minutes", "warned"), [(20, "1", "10"), (60, "1", "30"), (61, "2", "30"), (86400, "1440", "60")]
)
def test_slurms_minutes_are_rounded_up_and_the_warning_leaves_time(walltime_s: int, minutes: str, warned: str) -> None:
    lines = get_system("slurm").script(spec_of(walltime_s=walltime_s)).splitlines()
    assert f"#SBATCH --time={minutes}" in lines and f"#SBATCH --signal=B:USR1@{warned}" in lines


def test_several_workers_are_started_as_the_profile_says() -> None:
    def start(mpirun: tuple[str, ...] | None) -> str:
        script = get_system("pbs").script(spec_of(nodes=2, mpirun=mpirun, command=("w",)))
        return next(text for text in script.splitlines() if text.endswith((" w &", "exec w")))

    assert start(None) == "mpiexec -n 2 w &"
    assert start(("srun",)).startswith("srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --wait=0 --kill-on-bad-exit=0")
    assert start(("mpirun",)) == "mpirun -n 2 w &"
    assert start(("ibrun", "-x", "a b")) == "ibrun -x 'a b' w &"
    assert start(()) == "exec w"


# ---------------------------------------------------------------- HTCondor's own parser
@pytest.mark.parametrize("name", ["plain", "packed", "array", "everything"])
def test_htcondor_reads_its_description_itself(name: str) -> None:
    htcondor = pytest.importorskip("htcondor2", reason="HTCondor's Python bindings are not installed")
    spec = replace(case("htcondor", name), output_path='/q/it\'s 100% $HOME "x"/log', constraint='Arch == "a$(b)"')
    system = get_system("htcondor")
    script_path = '/q/job\'s "7" $(x).sh'
    command = system.submit_command(spec, script_path)
    appended = [command[at + 1] for at, text in enumerate(command) if text == "-append"]
    lines = [text.removeprefix("#HTCONDOR ") for text in _directives(system.script(spec), "htcondor")]
    submit = htcondor.Submit("\n".join([*lines[:-1], *appended, lines[-1]]) + "\n")
    assert submit.expand("output").removesuffix(".0").removesuffix(".") == spec.output_path
    assert submit.expand("requirements") == spec.constraint
    assert submit.expand("executable") == "/bin/sh"
    assert submit.expand("arguments") == '"\'/q/job\'\'s ""7"" $(x).sh\'"'
    assert submit.getQArgs() == str(spec.array or 1)
