"""Packaging of fsqdo; everything pip has to know is here."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def version() -> str:
    """The version, read out of fsqdo/__init__.py as text: importing it would need what is only about to be installed."""
    found = re.search(r'^__version__ = "([^"]+)"$', (HERE / "fsqdo/__init__.py").read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit('fsqdo/__init__.py has no line `__version__ = "..."`')
    return found[1]


setup(
    name="fsqdo",
    version=version(),
    description="A task queue for high-throughput computing that is nothing but a directory",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    author="The fsqdo developers",
    license="BSD-3-Clause",
    python_requires=">=3.10",
    packages=find_packages(include=["fsqdo", "fsqdo.*"]),
    # Said although it is the default: an editable install is then a line in a .pth file, and not an import hook that would
    # cost every start of Python in that environment.
    package_dir={"": "."},
    package_data={"fsqdo": ["py.typed"], "fsqdo.batch": ["*.sh"]},
    entry_points={"console_scripts": ["fsqdo = fsqdo.cli:main"]},
    install_requires=["click>=8.1.7", "filelock>=3.16", "pyyaml>=6.0.1"],
    extras_require={
        # What `make benchmarks` compares fsqdo with.
        "bench": ["dirq>=1.8", "huey>=3", "hyperqueue>=0.20", "jug>=2.3", "persist-queue>=1.0"],
        "test": [
            # HTCondor's own parser of submit descriptions: wheels only; its test is skipped without them.
            "htcondor>=24; sys_platform == 'linux' and platform_machine == 'x86_64' and python_version < '3.15'",
            "hypothesis>=6.100",
            "mypy>=1.14",
            "pytest>=8.2",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "types-PyYAML>=6.0.12.20240311",
        ],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
)
