"""`import-litellm`: take over the users of LiteLLM's budget manager."""

from __future__ import annotations

from typing import Annotated

from budgetguard.cli import options
from budgetguard.cli.session import session
from budgetguard.core.money import to_usd
from budgetguard.core.wording import printable


def import_litellm(
    path: Annotated[str, options.argument("PATH", "LiteLLM's user_cost.json.")],
    calendar: Annotated[
        bool, options.flag("Take 28 days for a month, and 365 for a year.", "--calendar")
    ] = False,
    store: options.Store = None,
    project: options.Project = None,
    json: options.Json = False,
) -> None:
    """Take over the users of LiteLLM's user_cost.json.

    What they have spent comes with them. The whole file is checked before anything is made. Users who have a
    budget here are left as they are, so running it again changes nothing.

    \b
    Example:
      budgetguard import-litellm user_cost.json --calendar
    """
    with session(store, project, json=json, may_make=True) as here:
        done = here.guard.manager().import_litellm(path, calendar=calendar)
        found = {
            "action": "imported",
            "project": here.guard.project,
            "created": list(done.created),
            "existing": list(done.existing),
            "deleted": list(done.deleted),
            "over": list(done.over),
            "spent": format(to_usd(done.spent), "f"),
        }
        here.answer(found, f"Into {printable(here.place)}: {done}.")
