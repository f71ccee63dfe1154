"""`python -m fsqdo`, and `python path/to/fsqdo` for a package that is not installed (a batch job started from a checkout)."""

import os
import sys

if not __package__:
    # Python put the package's own directory first on the path, where its modules would hide others of the same name.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from fsqdo.cli import main

if __name__ == "__main__":
    sys.exit(main())
