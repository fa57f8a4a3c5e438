"""LiteLLM's hosted protocol: `/get_budget` and `/set_budget`, as its own client speaks it."""

from __future__ import annotations

from typing import Final

from budgetguard.server.routes import Route

ROUTES: Final[tuple[Route, ...]] = ()
