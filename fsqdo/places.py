"""Where the queues are, and which files configure fsqdo. Small: every command asks this, and most need nothing else of it."""

from __future__ import annotations

import os

DEFAULT_DIR = "~/.fsqdo/queues"
SITE_FILE = "/etc/fsqdo/config.yaml"


def config_files() -> list[tuple[str, bool]]:
    """The files to read, and whether each must be there; the later ones count for more."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(home):  # the XDG specification: relative ones are to be ignored
        home = os.path.expanduser("~/.config")
    files = [(SITE_FILE, False), (f"{home}/fsqdo/config.yaml", False)]
    given = os.environ.get("FSQDO_CONFIG")
    if given:
        path = os.path.abspath(os.path.expanduser(given))
        files = [*((other, must) for other, must in files if other != path), (path, True)]
    return files


def dir_of_environment() -> str | None:
    """What FSQDO_DIR says, as an absolute path; None when it says nothing."""
    given = os.environ.get("FSQDO_DIR")
    return os.path.abspath(os.path.expanduser(given)) if given else None


def known_dir() -> str | None:
    """The directory that holds the queues, where no file has to be read to know it; None: ask the configuration."""
    given = dir_of_environment()
    if given:
        return given
    if any(must_exist or os.path.lexists(path) for path, must_exist in config_files()):
        return None
    return os.path.expanduser(DEFAULT_DIR)
