"""Say in one line what is missing before a virtual environment can be built."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(f"vedette needs Python 3.11 or newer; this is {sys.version.split()[0]} (set PYTHON=python3.12)")
try:
    import ensurepip  # noqa: F401
    import venv  # noqa: F401
except ImportError:
    sys.exit("vedette needs Python's venv module: apt-get install python3-venv")
