"""The command line. `main` is the console script `budgetguard`; it needs the extra `cli` (typer, rich)."""

from __future__ import annotations

import sys
from importlib.util import find_spec

_NEEDED = ("typer", "rich")


def main() -> None:
    """Run the command line, and exit: 0 for done, 1 for refused or a store that fails, 2 for bad input."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"The budgetguard command needs {' and '.join(missing)}: pip install 'budgetguard-ai[cli]'\n"
        )
        sys.exit(1)
    from budgetguard.cli.app import app

    app(prog_name="budgetguard")
