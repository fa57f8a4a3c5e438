"""What a Python of a run does just before it imports an SDK that is guarded."""

from __future__ import annotations

import budgetguard
from budgetguard.providers.sdks import patch_all


def arm() -> None:
    """Guard every client of each SDK with the default guard, which the run's variables set up.

    Raises:
        ConfigurationError: a bad `BUDGETGUARD_*` variable, or an SDK that is not known to work.
    """
    patch_all(budgetguard.default_guard().engine)
