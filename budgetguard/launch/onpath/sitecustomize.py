"""Make a Python that has this folder on its path part of the run, and take the folder off the path."""

import os
import sys

_HERE = os.path.dirname(__file__)  # noqa: PTH120 - pathlib takes longer to import than all of this


def _chain() -> None:
    """Run the next `sitecustomize` of the path, as if ours were not there."""
    mine = sys.modules.pop(__name__)
    try:
        __import__(__name__)
    except BaseException as error:
        sys.modules.setdefault(__name__, mine)
        if not (isinstance(error, ImportError) and error.name == __name__):
            raise


if __name__ == "sitecustomize" and _HERE in sys.path:
    __import__("_budgetguard_run")
    sys.path[:] = [folder for folder in sys.path if folder != _HERE]
    _chain()
