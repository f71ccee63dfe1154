"""The configuration and walltimes: what is read from where, and everything wrong told at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fsqdo import config, places
from fsqdo.batch import get_system
from fsqdo.config import load_config
from fsqdo.errors import ConfigError, InputError
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
        "dir: /site\ndefault_profile: node\nprofiles:\n  node:\n    system: local\n    env: {A: 1, B: 2}\n    prologue: [one]\n"
    )
    user_file.write_text("dir: /mine\nprofiles:\n  node:\n    env: {B: 3}\n  other: {system: local}\n")
    found = load_config()
    assert found.dir == "/mine"
    assert found.default_profile == "node"
    assert found.profile().env == {"A": "1", "B": "3"}
    assert found.profile().prologue == ("one",)
    assert set(found.profiles) == {"local", "node", "other"}
    assert found.sources == (str(site), str(user_file))
    assert found.origins["dir"] == f"{user_file}:1"
    assert found.origins["profiles.node.env.A"] == f"{site}:6"
    assert found.origins["profiles.node.env.B"] == f"{user_file}:4"


def test_fsqdo_config_is_read_alone(tmp_path: Path, user_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_file.write_text("default_profile: nothing\n")
    given_file = tmp_path / "given.yaml"
    given_file.write_text("dir: /given\n")
    monkeypatch.setenv("FSQDO_CONFIG", str(given_file))
    assert load_config().dir == "/given"
    assert load_config().sources == (str(given_file),)


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
    env: {THREADS: 8}
  base:
    extends: local
    env: {THREADS: 1, MODE: 0.10, DAY: 2026-01-02}
    prologue: |
      ulimit -c 0
      . ./setup.sh
""")
    found = load_config()
    assert found.profile("big").env == {"THREADS": "8", "MODE": "0.10", "DAY": "2026-01-02"}
    assert found.profile("big").prologue == ("ulimit -c 0", ". ./setup.sh")
    assert found.origins["profiles.big.env.MODE"] == f"{user_file}:8"


def test_anchors_and_merge_keys_work(user_file: Path) -> None:
    user_file.write_text("profiles:\n  a: &a {system: local, env: {X: 1}}\n  b:\n    <<: *a\n    prologue: [echo]\n")
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
    user_file.write_text("profiles:\n" + "".join(f"  p{n}: {{system: local, env: {{N: {n}}}}}\n" for n in range(500)))
    assert load_config().profile("p499").env == {"N": "499"}


# ---------------------------------------------------------------- what is wrong
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
  e: {system: local, env: {YES: yes, B-: 3, N: , L: [1]}}
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
            f"5: system is 'lokal', but must be one of {', '.join(config.SYSTEMS)}; did you mean 'local'?",
            "6: these profiles extend each other: b, c",
            f"8: the profile 'd' has no `system`; the systems are {', '.join(config.SYSTEMS)}",
            # of a key that stands twice the last value counts, so the one on line 9 is not looked at
            "10: each line of prologue must be text: put it in quotes",
            "11: the profile 'g' extends 'nowhere', which is none of local, a, b, c, d, e, f, g, h",
            f"12: the profile 'h' has no `system`; the systems are {', '.join(config.SYSTEMS)}",
            "12: the profile 'h' has no key 'sytem'; the keys are system, extends, env, prologue; did you mean 'system'?",
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
        ("profiles: {local: {env: [A]}}", "1: env must be a mapping"),
        ("profiles: {local: {env: {YES: yes}}}", "1: the value of YES is 'yes': put it in quotes"),
        ("profiles: {local: {env: {N: }}}", "1: the value of N is '': put it in quotes"),
        ("profiles: {local: {env: {N: [1]}}}", "1: the value of N must be text"),
        ('profiles: {local: {env: {N: "a\\0b"}}}', "1: the value of N must be text (without NUL bytes)"),
        ("profiles: {local: {env: {A=B: c}}}", "1: 'A=B' cannot be the name of an environment variable"),
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


def test_the_systems_of_a_profile_are_those_that_there_are() -> None:
    assert [get_system(name).name for name in config.SYSTEMS] == list(config.SYSTEMS)


# ---------------------------------------------------------------- walltimes
@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24:00:00", 86400), ("30:00", 1800), ("0:120:00", 7200), ("45", 2700), ("0:1", 1), (" 1:00:90 ", 3690), (30, 1800)],
)
def test_walltimes_that_people_write(text: str | int, seconds: int) -> None:
    assert parse_walltime(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", " ", "0", "0:00:00", "-5", "1:-1", "1.5", "1:2:3:4", ":30", "30:", "1::2", "1 2", "٣:00", "1e3", "9" * 400,
     "999999999", "1:00\n:00", "1h", "$(id)", True, None, 1.5, b"30:00"],
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
