"""`migrate`: make a store's database ready for this version of budgetguard."""

from __future__ import annotations

from budgetguard.cli import options
from budgetguard.cli.session import session
from budgetguard.core.wording import printable
from budgetguard.stores.base import Migrating, public_url


def migrate(store: options.Store = None, project: options.Project = None, json: options.Json = False) -> None:
    """Make the tables and functions of a postgresql:// store, or update them.

    A store does this itself on first use, if its role may. Where programs connect as a role that may not, run
    this as the role that owns the schema: it prints what to grant to theirs. Other stores need nothing.

    \b
    Example:
      budgetguard migrate --store postgresql://owner@db.internal/budgets
    """
    with session(store, project, json=json, may_make=True) as here:
        found = here.guard.store
        place = printable(public_url(found.url))
        if not isinstance(found, Migrating):
            if json:
                here.write({"action": "none", "before": None, "after": None, "grants": None})
            else:
                here.say(f"Nothing to do: {place} has no schema to migrate.")
            return
        before, after = found.migrate()
        if json:
            action = "none" if before == after else "migrated"
            here.write({"action": action, "before": before, "after": after, "grants": found.grants()})
            return
        if before == after:
            here.say(f"Nothing to do: the schema of {place} has version {after}.")
        elif before == 0:
            here.say(f"Made the schema of {place}, version {after}.")
        else:
            here.say(f"Migrated the schema of {place} from version {before} to {after}.")
        here.say(f"To let another role use it: {found.grants()};")
