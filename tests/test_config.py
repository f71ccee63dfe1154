"""The configuration and walltimes: what is read from where, and everything wrong told at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fsqdo import places
from fsqdo.batch import JobSpec, get_system
from fsqdo.config import DEFAULT_PROFILE, SYSTEMS, Profile, load_config
from fsqdo.configfile import PROFILE_KEYS
from fsqdo.errors import BatchError, ConfigError, InputError
from fsqdo.queue import queues_dir
from fsqdo.walltime import format_walltime, parse_walltime


@pytest.fixture(autouse=True)
def _no_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "SITE_FILE", str(tmp_path / "site.yaml"))
    monkeypatch.delenv("FSQDO_DIR")


@pytest.fixture
def user_file() -> Path:
    path = Path(os.environ["XDG_CONFIG_HOME"], "fsqdo", "config.yaml")
    path.parent.mkdir(parents=True)
    return path


def _problems(text: str | bytes, path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The problems of one file, without its path."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    monkeypatch.setenv("FSQDO_CONFIG", str(path))
    with pytest.raises(ConfigError) as caught:
        load_config()
    assert caught.value.exit_code == 2
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    return [problem.replace(f"{path}:", "") for problem in caught.value.problems]


# ---------------------------------------------------------------- where values come from
def test_without_a_file_there_are_the_defaults() -> None:
    found = load_config()
    assert found.dir == os.path.expanduser("~/.fsqdo/queues")
    assert found.default_profile == "local"
    assert found.profile().system == "local"
    assert found.sources == ()
    assert found.origins["dir"] == found.origins["profiles.local.system"] == "built in"


def test_the_environment_comes_before_the_files(user_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_file.write_text("dir: /from/file\n")
    assert queues_dir() == "/from/file"
    monkeypatch.setenv("FSQDO_DIR", "/from/environment")
    assert queues_dir() == "/from/environment"
    assert load_config().origins["dir"] == "FSQDO_DIR"
    monkeypatch.setenv("FSQDO_DIR", "~/mine")
    assert queues_dir() == os.path.expanduser("~/mine")
    monkeypatch.setenv("FSQDO_DIR", "")
    assert queues_dir() == "/from/file"


def test_a_relative_fsqdo_dir_is_taken_from_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FSQDO_DIR", "here")
    assert queues_dir() == str(tmp_path / "here")


def test_dir_expands_home_and_variables(user_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    user_file.write_text("dir: ${SCRATCH}/queues/\n")
    assert queues_dir() == "/scratch/me/queues"
    user_file.write_text("dir: ~/queues\n")
    assert queues_dir() == os.path.expanduser("~/queues")


def test_the_users_file_adds_to_the_sites(tmp_path: Path, user_file: Path) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(
        "dir: /site\ndefault_profile: node\n"
        "profiles:\n  node:\n    system: local\n    variables: {A: 1, B: 2}\n    prologue: [one]\n"
    )
    user_file.write_text("dir: /mine\nprofiles:\n  node:\n    variables: {B: 3}\n  other: {system: local}\n")
    found = load_config()
    assert found.dir == "/mine"
    assert found.default_profile == "node"
    assert found.profile().env == {"A": "1", "B": "3"}
    assert found.profile().prologue == ("one",)
    assert set(found.profiles) == {"local", "node", "other"}
    assert found.sources == (str(site), str(user_file))
    assert found.origins["dir"] == f"{user_file}:1"
    assert found.origins["profiles.node.variables.A"] == f"{site}:6"
    assert found.origins["profiles.node.variables.B"] == f"{user_file}:4"


def test_what_fsqdo_config_names_is_merged_last(tmp_path: Path, user_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, given_file = tmp_path / "site.yaml", tmp_path / "given.yaml"
    site.write_text("dir: /site\nprofiles: {a: {system: local, variables: {A: site, B: site, C: site}}}\n")
    user_file.write_text("dir: /user\nprofiles: {a: {variables: {B: user, C: user}}}\n")
    given_file.write_text("dir: /given\nprofiles: {a: {variables: {C: given}}}\n")
    monkeypatch.setenv("FSQDO_CONFIG", str(given_file))
    found = load_config()
    assert (found.dir, found.origins["dir"]) == ("/given", f"{given_file}:1")
    assert found.profile("a").env == {"A": "site", "B": "user", "C": "given"}
    assert found.sources == (str(site), str(user_file), str(given_file))
    monkeypatch.setenv("FSQDO_CONFIG", os.devnull)
    assert load_config().dir == "/user"
    monkeypatch.setenv("FSQDO_CONFIG", str(site))
    assert load_config().sources == (str(user_file), str(site)), "no file is read twice"
    assert load_config().dir == "/site"


def test_a_relative_xdg_config_home_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "elsewhere")
    path = Path(os.environ["HOME"], ".config/fsqdo/config.yaml")
    path.parent.mkdir(parents=True)
    path.write_text("dir: /by/home\n")
    assert queues_dir() == "/by/home"


def test_a_profile_extends_another(user_file: Path) -> None:
    user_file.write_text("""
profiles:
  big:
    extends: base
    variables: {THREADS: 8}
  base:
    extends: local
    variables: {THREADS: 1, MODE: 0.10, DAY: 2026-01-02}
    prologue: |
      ulimit -c 0
      . ./setup.sh
""")
    found = load_config()
    assert found.profile("big").env == {"THREADS": "8", "MODE": "0.10", "DAY": "2026-01-02"}
    assert found.profile("big").prologue == ("ulimit -c 0", ". ./setup.sh")
    assert found.origins["profiles.big.variables.MODE"] == f"{user_file}:8"


def test_anchors_and_merge_keys_work(user_file: Path) -> None:
    user_file.write_text("profiles:\n  a: &a {system: local, variables: {X: 1}}\n  b:\n    <<: *a\n    prologue: [echo]\n")
    found = load_config()
    assert found.profile("b").env == {"X": "1"}
    assert found.profile("b").prologue == ("echo",)


def test_an_unknown_profile_is_refused_with_the_nearest(user_file: Path) -> None:
    with pytest.raises(InputError, match="no profile 'Locl'; the profiles are local; did you mean 'local'"):
        load_config().profile("Locl")


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "profiles:\n", "profiles: {}\n", "dir:\n"])
def test_an_empty_file_is_fine(user_file: Path, text: str) -> None:
    user_file.write_text(text)
    assert load_config().profile().name == "local"


def test_a_large_file_is_read_like_a_small_one(user_file: Path) -> None:
    user_file.write_text("profiles:\n" + "".join(f"  p{n}: {{system: local, variables: {{N: {n}}}}}\n" for n in range(500)))
    assert load_config().profile("p499").env == {"N": "499"}


def test_a_profile_with_every_key(user_file: Path) -> None:
    user_file.write_text("""
profiles:
  all:
    system: slurm
    extends: base
    cores_per_node: 128
    gpus_per_node: 0
    mem_per_node: 512 GiB
    max_walltime: 24:00:00
    max_nodes: 16
    max_jobs: 8
    account: 0123
    queue: regular
    constraint: gpu&hbm80g
    directives: [--exclusive, "--mail-user=a b"]
    prologue: |
      module load python
      ulimit -c 0
    epilogue: [sync]
    wrap: podman run -v "a b" img
    mpirun: [srun, -K, 1]
    env: clean
    variables: {A: 1}
    script: |
      #!/bin/sh
      {{command}}
  base: {system: local, max_jobs: 3}
""")
    found = load_config()
    assert found.profile("all") == Profile(
        name="all",
        system="slurm",
        env={"A": "1"},
        prologue=("module load python", "ulimit -c 0"),
        epilogue=("sync",),
        cores_per_node=128,
        gpus_per_node=0,
        mem_per_node_mb=512 * 1024,
        max_walltime_s=86400,
        max_nodes=16,
        max_jobs=8,
        account="0123",
        queue="regular",
        constraint="gpu&hbm80g",
        directives=("--exclusive", "--mail-user=a b"),
        wrap=("podman", "run", "-v", "a b", "img"),
        mpirun=("srun", "-K", "1"),
        keep_env=False,
        script="#!/bin/sh\n{{command}}\n",
    )
    assert found.profile("base").max_jobs == 3
    assert set(PROFILE_KEYS) == {key.split(".")[2] for key in found.origins if key.startswith("profiles.all.")}
    assert found.origins["profiles.all.max_jobs"] == f"{user_file}:11"


@pytest.mark.parametrize(
    ("text", "mb"),
    [("96000", 96000), ('"128G"', 131072), ("512 GiB", 524288), ("1.5 T", 1572864), ("2gb", 2048), ("0.5G", 512), ("7 MiB", 7)],
)
def test_memory_as_people_write_it(user_file: Path, text: str, mb: int) -> None:
    user_file.write_text(f"profiles: {{local: {{mem_per_node: {text}}}}}\n")
    assert load_config().profile().mem_per_node_mb == mb


def test_a_profile_may_take_back_what_it_inherits(user_file: Path) -> None:
    user_file.write_text(
        "profiles:\n  a: {system: local, env: clean, wrap: x y, directives: [a], mpirun: srun}\n"
        "  b: {extends: a, env: keep, wrap: [], directives: [], mpirun: []}\n"
    )
    found = load_config().profile("b")
    assert (found.keep_env, found.wrap, found.directives, found.mpirun) == (True, (), (), ())


def test_batch_systems_are_imported_only_for_a_script(user_file: Path) -> None:
    code = "import sys, fsqdo.config as c; c.load_config(); print('fsqdo.batch' in sys.modules)"
    for text, imported in (("profiles: {local: {env: clean}}", False), ("profiles: {local: {script: '{{command}}'}}", True)):
        user_file.write_text(text)
        said = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=True, capture_output=True, text=True)
        assert said.stdout == f"{imported}\n"


# ---------------------------------------------------------------- what is wrong
def _fills_in_scripts() -> bool:
    spec = JobSpec(name="j", queue_dir="/", command=("c",), output_path="/o", directory="/", template="mine")
    return get_system("local").script(spec) == "mine"


@pytest.mark.skipif(not _fills_in_scripts(), reason="this release's systems take no script of a profile")
def test_unknown_variables_of_a_script_are_told_with_their_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "profiles:\n  local:\n    script: |\n      #!/bin/sh\n      {{nodez}}\n      {{command}}\n      x {{y}}\n"
    problems = _problems(text, tmp_path / "c.yaml", monkeypatch)
    assert [problem.partition("; there are")[0] for problem in problems] == [
        "5: in script: there is no variable 'nodez'",
        "7: in script: there is no variable 'y'",
    ]
    (folded,) = _problems('profiles:\n  local:\n    script: "{{nodez}}"\n', tmp_path / "c.yaml", monkeypatch)
    assert folded.startswith("3: in script: there is no variable 'nodez'; there are ")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("max_nodes: 0", "max_nodes is '0', but must be a number of at least 1"),
        ("max_jobs: many", "max_jobs is 'many', but must be a number"),
        ("gpus_per_node: -1", "gpus_per_node is '-1', but must be a number of at least 0"),
        ("cores_per_node: [4]", "cores_per_node is a list or a mapping"),
        ("mem_per_node: 4 apples", "mem_per_node is '4 apples', but must be memory"),
        ("mem_per_node: 0", "mem_per_node is '0'"),
        ("mem_per_node: 9e9G", "mem_per_node is '9e9G'"),
        ("max_walltime: soon", "max_walltime is 'soon', but must be a walltime: write h:m:s"),
        ("max_walltime: {}", "max_walltime is a list or a mapping"),
        ('account: "a\\n#SBATCH --uid=0"', "account is 'a\\n#SBATCH --uid=0', but must be text on one line"),
        ("queue: yes", "queue is 'yes'"),
        ("constraint: [a]", "constraint is a list or a mapping"),
        ("directives: --exclusive", "directives must be a list of lines"),
        ('directives: ["-l a", "b\\nc"]', "a line of directives is 'b\\nc', but must be text on one line"),
        ('directives: ["a\\u2028b"]', "a line of directives is 'a\\u2028b'"),
        ("directives: [1]", "a line of directives is '1'"),
        ("""wrap: "it's" """, 'wrap is "it\'s", which is no words of a shell: No closing quotation'),
        ("wrap: [a, yes]", "a word of wrap is 'yes'"),
        ("mpirun: [a, [b]]", "a word of mpirun is a list or a mapping"),
        ("mpirun: 4", "mpirun is '4'"),
        ("epilogue: 3", "epilogue must be a list of shell lines"),
        ('script: " "', "script is ' ', but must be the text of a job's script"),
        ("script: [a]", "script is a list or a mapping"),
    ],
)
def test_a_wrong_value_of_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: str, expected: str) -> None:
    (problem,) = _problems(f"profiles: {{local: {{{values}}}}}", tmp_path / "c.yaml", monkeypatch)
    assert problem.startswith(f"1: {expected}")


def test_all_problems_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """\
dir: $NOT_SET_HERE/q
defalt_profile: x
default_profile: lcal
profiles:
  a: {system: lokal}
  b: {extends: c}
  c: {extends: b}
  d:
  e: {system: local, variables: {YES: yes, B-: 3, N: , L: [1]}}
  f: {system: local, prologue: [1]}
  g: {extends: nowhere}
  h: {sytem: local}
  e: {system: local}
  a b: {system: local}
  ? [x]
  : 3
"""
    problems = _problems(text, tmp_path / "c.yaml", monkeypatch)
    keys = ("dir", "default_profile", "profiles")
    assert sorted(problems) == sorted(
        [
            "1: dir is '$NOT_SET_HERE/q', but $NOT_SET_HERE is not set in the environment",
            f"2: the file has no key 'defalt_profile'; the keys are {', '.join(keys)}; did you mean 'default_profile'?",
            "3: default_profile is 'lcal', which is none of the profiles local, a, b, c, d, e, f, g, h; did you mean 'local'?",
            f"5: system is 'lokal', but must be one of {', '.join(SYSTEMS)}; did you mean 'local'?",
            "6: these profiles extend each other: b, c",
            f"8: the profile 'd' has no `system`; the systems are {', '.join(SYSTEMS)}",
            # of a key that stands twice the last value counts, so the one on line 9 is not looked at
            "10: each line of prologue must be text: put it in quotes",
            "11: the profile 'g' extends 'nowhere', which is none of local, a, b, c, d, e, f, g, h",
            f"12: the profile 'h' has no `system`; the systems are {', '.join(SYSTEMS)}",
            f"12: the profile 'h' has no key 'sytem'; the keys are {', '.join(PROFILE_KEYS)}; did you mean 'system'?",
            "13: 'e' stands here twice, first on line 9",
            "14: 'a b' cannot be the name of a profile: use letters, digits, _ . -",
            "15: a key of profiles is a list or a mapping, but must be a word",
        ]
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dir: [", "2: not YAML"),
        ("dir: relative", "1: dir is 'relative', but must be an absolute path"),
        ("dir: [a]", "1: dir is a list or a mapping, but must be text"),
        ("\ndir: 12", "2: dir is '12', but must be text"),
        ('dir: "/a\\nb"', "1: dir is '/a\\nb', but must be text on one line"),
        ("- 1", "1: the file must be a mapping"),
        ("just words", "1: the file must be a mapping"),
        ("a: 1\n---\nb: 2", "2: not YAML"),
        ("dir: \x07", "not YAML"),
        ("dir: !!python/object/apply:os.system [x]", "1: dir is a list or a mapping"),
        ("&a {dir: *a}", "1: dir is a list or a mapping"),
        ("profiles: &a {x: *a}", "1: the profile 'x' has no key 'x'"),
        ("profiles: 3", "1: profiles must be a mapping"),
        ("profiles: {a: local}", "1: the profile 'a' must be a mapping"),
        ("profiles: {local: {variables: [A]}}", "1: variables must be a mapping"),
        ("profiles: {local: {variables: {YES: yes}}}", "1: the value of YES is 'yes': put it in quotes"),
        ("profiles: {local: {variables: {N: }}}", "1: the value of N is '': put it in quotes"),
        ("profiles: {local: {variables: {N: [1]}}}", "1: the value of N must be text"),
        ('profiles: {local: {variables: {N: "a\\0b"}}}', "1: the value of N must be text (without NUL bytes)"),
        ("profiles: {local: {variables: {A=B: c}}}", "1: 'A=B' cannot be the name of an environment variable"),
        ("profiles: {local: {env: {A: 1}}}", "1: env is keep or clean; environment variables stand under `variables:`"),
        ("profiles: {local: {env: kept}}", "1: env is 'kept', but must be one of keep, clean; did you mean 'keep'?"),
        ("profiles: {local: {prologue: {a: b}}}", "1: prologue must be a list of shell lines"),
        ("profiles: {local: {prologue: [[a]]}}", "1: prologue must be a list of shell lines"),
        ('profiles: {local: {prologue: ["a\\0"]}}', "1: each line of prologue must be text"),
        (b"dir: /q\nx: \xff", "2: byte 0xff is not UTF-8"),
        ("- " * 11_000, "nested too deeply"),
    ],
)
def test_a_wrong_file_says_what_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes, expected: str
) -> None:
    problems = _problems(text, tmp_path / "c.yaml", monkeypatch)
    assert expected in problems[0]


def test_problems_of_all_files_are_told(tmp_path: Path, user_file: Path) -> None:
    (tmp_path / "site.yaml").write_text("dri: /x\n")
    user_file.write_text("dir: [\n")
    with pytest.raises(ConfigError) as caught:
        load_config()
    assert [problem.split(":")[0] for problem in caught.value.problems] == [str(tmp_path / "site.yaml"), str(user_file)]


def test_a_file_that_fsqdo_config_names_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSQDO_CONFIG", str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match=r"none\.yaml: there is no such file, but FSQDO_CONFIG names it"):
        load_config()


def test_an_unreadable_file_is_an_error_and_not_an_empty_one(user_file: Path) -> None:
    user_file.mkdir()
    with pytest.raises(ConfigError, match=r"config\.yaml: cannot be read: Is a directory"):
        queues_dir()


@pytest.mark.parametrize(
    ("with_dir", "with_file", "imported"), [(True, True, False), (False, True, True), (False, False, False)]
)
def test_yaml_is_imported_only_for_a_file(user_file: Path, with_dir: bool, with_file: bool, imported: bool) -> None:
    if with_file:
        user_file.write_text("dir: /q\n")
    code = (
        "import sys, fsqdo.places as c, fsqdo.queue as q; c.SITE_FILE = '/nonexistent'; q.queues_dir(); "
        "print('yaml' in sys.modules)"
    )
    env = {**os.environ, **({"FSQDO_DIR": "/q"} if with_dir else {})}
    said = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
    assert said.stdout == f"{imported}\n"


def _known(name: str) -> bool:
    try:
        return get_system(name).name == name
    except BatchError:
        return False  # its module is another part of the package; a profile may name it all the same


def test_the_systems_of_a_profile_are_those_that_there_are() -> None:
    assert SYSTEMS[0] == DEFAULT_PROFILE
    assert _known(SYSTEMS[0])
    assert not _known("abacus")


# ---------------------------------------------------------------- showing it
def _config_command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fsqdo", "config", *words], env=dict(os.environ), check=False, capture_output=True, text=True
    )


def test_config_shows_yaml_that_says_the_same_and_where_each_value_comes_from(
    user_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_file.write_text(
        "dir: /q\ndefault_profile: n1\nprofiles:\n  base: {system: local, variables: {A: '1', B: no-1, C: \"x\\ty\"}}\n"
        "  n1:\n    extends: base\n    max_walltime: 90:00\n    mem_per_node: 2G\n    env: clean\n    directives: ['- a: #b']\n"
        "    wrap: x 'y z'\n    account: 0123\n    script: |\n      #!/bin/sh\n      : {{name}}\n      {{command}}\n"
    )
    done = _config_command()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"# {user_file}"
    assert lines[1] == f"dir: /q  # {user_file}:1"
    assert f"    max_walltime: '1:30:00'  # {user_file}:7" in lines or f"    max_walltime: 1:30:00  # {user_file}:7" in lines
    assert f"      A: '1'  # {user_file}:4" in lines
    assert "    system: local  # built in" in lines
    before = load_config()
    shown = tmp_path / "shown.yaml"
    shown.write_text(done.stdout)
    user_file.unlink()
    monkeypatch.setenv("FSQDO_CONFIG", str(shown))
    after = load_config()
    assert after.profiles == before.profiles
    assert (after.dir, after.default_profile) == (before.dir, before.default_profile)


def test_config_as_json(user_file: Path) -> None:
    user_file.write_text("profiles: {n: {system: local, max_nodes: 3}}\n")
    shown = json.loads(_config_command("--json").stdout)
    assert (shown["default_profile"], shown["profiles"]["n"]["max_nodes"]) == ("local", 3)
    assert shown["origins"]["profiles.n.max_nodes"] == f"{user_file}:1"
    assert shown["sources"] == [str(user_file)]


def test_config_without_a_file_says_what_is_built_in() -> None:
    done = _config_command()
    assert done.returncode == 0
    assert done.stdout.endswith("profiles:\n  local:\n    system: local  # built in\n")


def test_config_reports_all_that_is_wrong(user_file: Path) -> None:
    user_file.write_text("dri: /q\nprofiles: {n: {system: slrm, max_nodes: 0}}\n")
    done = _config_command()
    assert (done.returncode, done.stdout) == (2, "")
    for part in (
        f"{user_file}:1: the file has no key 'dri'",
        f"{user_file}:2: system is 'slrm'",
        "did you mean 'slurm'",
        "max_nodes is",
    ):
        assert part in done.stderr


# ---------------------------------------------------------------- walltimes
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("24:00:00", 86400),
        ("30:00", 1800),
        ("0:120:00", 7200),
        ("45", 2700),
        ("0:1", 1),
        (" 1:00:90 ", 3690),
        (30, 1800),
        ("1-0", 86400),
        ("1-12:30", 131_400),
        ("2-12:00:00", 216_000),
        ("0-0:10", 600),
    ],
)
def test_walltimes_that_people_write(text: str | int, seconds: int) -> None:
    assert parse_walltime(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", " ", "0", "0:00:00", "-5", "1:-1", "1.5", "1:2:3:4", ":30", "30:", "1::2", "1 2", "٣:00", "1e3", "9" * 400,
     "999999999", "1:00\n:00", "1h", "-1:00", "1-", "1--2", "1-2-3", "1-1:2:3:4", "$(id)", True, None, 1.5, b"30:00"],
)  # fmt: skip
def test_what_is_no_walltime_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="walltime"):
        parse_walltime(text)


@given(st.lists(st.integers(0, 99999), min_size=1, max_size=3))
def test_a_walltime_is_the_sum_of_its_parts(parts: list[int]) -> None:
    units = {1: (60,), 2: (60, 1), 3: (3600, 60, 1)}[len(parts)]
    expected = sum(part * unit for part, unit in zip(parts, units, strict=True))
    text = ":".join(map(str, parts))
    if 0 < expected <= 10 * 366 * 86400:
        assert parse_walltime(text) == expected
        assert parse_walltime(format_walltime(expected)) == expected
    else:
        with pytest.raises(InputError):
            parse_walltime(text)


@given(st.text())
@example("1:2")
def test_any_text_is_a_walltime_or_refused(text: str) -> None:
    try:
        assert parse_walltime(text) > 0
    except InputError as error:
        assert len(str(error)) < 200
