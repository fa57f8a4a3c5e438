"""`spool` and `deliver`: settlements that a store did not take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from budgetguard.cli import options
from budgetguard.cli.display import money, when, zone_name
from budgetguard.cli.session import confirm, session
from budgetguard.cli.stores import From, To
from budgetguard.cli.tables import Column, new_table, text_column
from budgetguard.core.money import format_usd, to_usd
from budgetguard.core.windows import to_datetime
from budgetguard.core.wording import count, printable
from budgetguard.engine.spool import deliver as deliver_settlements
from budgetguard.engine.spool import drop_unknown, spool_folder, waiting
from budgetguard.errors import ConfigurationError
from budgetguard.guard import Guard
from budgetguard.stores.base import public_url


def spool(
    drop: Annotated[
        bool, options.flag("Remove those whose accounts the store does not know.", "--drop")
    ] = False,
    yes: options.Yes = False,
    timezone: options.Timezone = None,
    json: options.Json = False,
) -> None:
    """List the settlements that wait on this machine for a store.

    They are in the folder of the setting spool (BUDGETGUARD_SPOOL). The next program that opens their store
    delivers them; `budgetguard deliver` sends them to another store.

    Those that are "unknown" were sent, but the store does not know the account: it has lost it, is not
    restored yet, or the account was deleted for good. They stay, and are sent again whenever the store is
    opened, until --drop removes them.

    \b
    Example:
      budgetguard spool
    """
    with session(timezone=timezone, json=json, may_make=True) as here:
        folder = _folder(here.guard)
        found = list(waiting(folder))
        if drop:
            unknown = sum(one.unknown for one in found)
            if unknown and not yes:
                confirm(f"Remove {count(unknown, 'settlement')} for good?")
            dropped = drop_unknown(folder) if unknown else 0
            here.answer(
                {"action": "dropped", "settlements": dropped}, f"Removed {count(dropped, 'settlement')}."
            )
            return
        if json:
            for one in found:
                here.write(
                    {
                        "store": one.store,
                        "project": one.project,
                        "settlements": one.settlements,
                        "cost": format(to_usd(one.cost), "f"),
                        "oldest": to_datetime(one.oldest).isoformat(),
                        "unknown": one.unknown,
                    }
                )
            return
        if not found:
            here.say("Nothing waits.")
            return
        costs = money([one.cost for one in found])
        columns = [
            *map(text_column, ("Store", "Project")),
            *map(Column, ("Settlements", "Unknown", "Cost")),
            Column("Oldest", "left"),
        ]
        rows = [
            [
                printable(one.store),
                printable(one.project),
                f"{one.settlements:,}",
                f"{one.unknown:,}",
                cost,
                when(to_datetime(one.oldest), here.timezone),
            ]
            for one, cost in zip(found, costs, strict=True)
        ]
        here.console.print(new_table(columns, rows))
        here.say(f"Times are in {zone_name(here.timezone)}.")


def deliver(
    source: From,
    target: To,
    project: options.Project = None,
    json: options.Json = False,
) -> None:
    """Send settlements that wait for a store to the one where the project is now.

    Each settlement counts once, however often it is sent. Run it on every machine whose programs wrote to
    the first store, once they have ended.

    \b
    Example:
      budgetguard deliver --from disk:///var/lib/app/budgets --to postgresql://db.internal/budgets
    """
    with session(target, project, json=json) as here:
        done = deliver_settlements(_folder(here.guard), source, here.guard.store)
        if json:
            here.write(
                {
                    "action": "delivered",
                    "project": here.guard.project,
                    "from": public_url(source),
                    "to": public_url(here.guard.store.url),
                    "settlements": done.settlements,
                    "booked": format(to_usd(done.booked), "f"),
                    "repeated": done.repeated,
                    "unknown": list(done.unknown),
                }
            )
            return
        if not done.settlements and not done.unknown:
            here.say(f"Nothing waits for project {here.guard.project!r} of {printable(public_url(source))}.")
            return
        here.say(
            f"Delivered {count(done.settlements, 'settlement')} to {printable(here.place)}: "
            f"{format_usd(done.booked)} booked"
            + (f", {done.repeated:,} were booked before" if done.repeated else "")
            + "."
        )
        for account in done.unknown:
            here.say(
                f"Settlements of {printable(account)} still wait: it has no budget there. "
                "See `budgetguard spool`."
            )


def _folder(guard: Guard) -> Path:
    if guard.settings.spool is None:
        raise ConfigurationError(
            "there is no spool: BUDGETGUARD_SPOOL is none, so settlements wait in the memory of programs"
        )
    return spool_folder(guard.settings.spool)
