"""Make this Python part of the run that its variables name, even without the run's `PYTHONPATH`.

A wheel installs this beside the package, with the `.pth` file that imports it in processes of a run.
"""

import os
import sys

_ON_PATH = os.path.join(os.path.dirname(__file__), "budgetguard", "launch", "onpath")  # noqa: PTH118, PTH120 - as there

sys.path.insert(0, _ON_PATH)
try:
    __import__("_budgetguard_run")
finally:
    sys.path.remove(_ON_PATH)
