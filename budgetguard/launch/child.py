"""What a Python of a run does just before it imports `openai`."""

from __future__ import annotations

import budgetguard


def arm() -> None:
    """Guard every client of the `openai` package with the default guard, which the run's variables set up.

    Raises:
        ConfigurationError: a bad `BUDGETGUARD_*` variable, or an openai that is not known to work.
    """
    budgetguard.patch_openai()
