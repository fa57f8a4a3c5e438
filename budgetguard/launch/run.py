"""A run: the budget that a program and all processes that it starts share, how they join it, its outcome."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from budgetguard.core.accounts import PROCESS, PROJECT, RUN, USER, Budget, account_name
from budgetguard.core.money import Nanos, format_usd, to_usd
from budgetguard.core.report import Report, summarize
from budgetguard.core.windows import Milliseconds, to_datetime
from budgetguard.core.wording import count, printable
from budgetguard.engine import runlog
from budgetguard.engine.runlog import GoneAround, Refusal
from budgetguard.errors import ConfigurationError
from budgetguard.guard import Guard
from budgetguard.stores.targets import disk_target

_ON_PATH: Final = Path(__file__).parent / "onpath"
_LOG: Final = "refused"
_STARTER: Final = "budgetguard_run.pth"
_NEEDED: Final = ("budgetguard", "wrapt", "contextvars_extras", "tiktoken", "diskcache", "genai_prices")
# Records have the time of their own process, whose clock may have been set back since.
_MARGIN: Final[Milliseconds] = 60_000


REFUSED: Final = 3
"""The status of a program that succeeded although calls of it were refused."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a run has spent, and what was refused.

    Attributes:
        run: its id.
        project: whose accounts.
        user: who pays where the program does not say, or None.
        limit: the run's own, Nanos; None where only the user's or project's budget counts.
        held: Nanos set aside for calls that have not ended.
        left: Nanos that the run may still spend; if it has no limit of its own, its user or project.
        report: its calls by model, the most expensive first.
        refusals: its refused calls.
        unguarded: SDKs that it has imported and that are not guarded; what they spend is not counted.
        around: addresses of providers that it has called outside of every guarded call; not counted either.
        blocked: addresses of providers that it was kept from calling so.
    """

    run: str
    project: str
    user: str | None
    limit: Nanos | None
    held: Nanos
    left: Nanos | None
    report: Report
    refusals: tuple[Refusal, ...]
    unguarded: tuple[str, ...] = ()
    around: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()

    @property
    def spent(self) -> Nanos:
        """Nanos booked."""
        return self.report.total.spent

    @property
    def calls(self) -> int:
        """Calls that were made and have ended."""
        return self.report.total.calls

    @property
    def refused(self) -> int:
        """Calls that a budget refused."""
        return len(self.refusals)

    def status(self, code: int = 0) -> int:
        """Return the exit status to end with: the program's own, or 3 for a success with refused calls."""
        return REFUSED if code == 0 and (self.refusals or self.blocked) else code

    def __str__(self) -> str:
        models = [
            f"{model} {format_usd(totals.spent)}" for (model,), totals in self.report.rows if totals.calls
        ]
        unseen = self.unguarded or self.around or self.blocked
        seen = not unseen or self.report.total.calls or self.report.total.open or self.refusals
        parts = [
            f"{format_usd(self.spent)} spent on {count(self.calls, 'call')}"
            + (f" ({', '.join(printable(one) for one in models)})" if models else "")
            if seen
            else "no guarded call was made"
        ]
        if self.left is not None:
            left = format_usd(self.left)
            if self.limit is not None:
                parts.append(f"{left} of {format_usd(self.limit)} left")
            else:
                parts.append(f"{self._payer} has {left} left")
        if self.report.total.open:
            open_ones = count(self.report.total.open, "call")
            parts.append(f"{format_usd(self.held)} held for {open_ones} without an end")
        if self.refusals:
            by = Counter(_refuser(one.account) for one in self.refusals)
            names = ", ".join(name if len(by) == 1 else f"{name} {times}" for name, times in by.most_common())
            parts.append(f"{count(self.refused, 'call')} refused by {printable(names)}")
        if self.unguarded:
            were = "was imported and is" if len(self.unguarded) == 1 else "were imported and are"
            parts.append(f"{_listed(self.unguarded)} {were} not guarded: what is spent there is not counted")
        if self.around:
            was = "was" if len(self.around) == 1 else "were"
            parts.append(
                f"{_listed(self.around)} {was} called outside of guarded calls: what is spent there is not "
                "counted"
            )
        if self.blocked:
            parts.append(f"unguarded calls of {_listed(self.blocked)} were refused")
        return f"budgetguard: {', '.join(parts)}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, money as USD text with no digit lost."""

        def usd(nanos: Nanos | None) -> str | None:
            return None if nanos is None else format(to_usd(nanos), "f")

        by = Counter(one.account for one in self.refusals)
        return {
            "run": self.run,
            "project": self.project,
            "user": self.user,
            "limit": usd(self.limit),
            "spent": usd(self.spent),
            "held": usd(self.held),
            "left": usd(self.left),
            "calls": self.calls,
            "open": self.report.total.open,
            "refused": self.refused,
            "refused_by": dict(sorted(by.items())),
            "unguarded": list(self.unguarded),
            "unguarded_addresses": list(self.around),
            "blocked_addresses": list(self.blocked),
            "models": self.report.to_dict()["rows"],
        }

    @property
    def _payer(self) -> str:
        return f"user {printable(repr(self.user))}" if self.user is not None else f"project {self.project!r}"


def _listed(names: tuple[str, ...]) -> str:
    return printable(" and ".join(names))


def _refuser(account: str) -> str:
    kind, _, ident = account.partition(":")
    names = {
        RUN: "the run's budget",
        PROCESS: "max_budget",
        USER: f"user {ident!r}",
        PROJECT: f"project {ident!r}",
    }
    return names.get(kind, account)


class SharedRun:
    """A run: its account, and the variables with which processes join it.

    Args:
        guard: its store, project and user.
        limit: Nanos that all processes may spend together; None leaves it at the budgets of user and project.

    Raises:
        ConfigurationError: a bad limit, or nothing at all limits the run.
        UnknownUserError: the guard's user has no budget.
        StoreError: the store failed.
    """

    def __init__(self, guard: Guard, limit: Nanos | None) -> None:
        self._guard = guard
        self._limit = limit
        _check_limited(guard, limited=limit is not None)
        self.id = os.urandom(8).hex()
        self._account = account_name(RUN, self.id)
        self._since = max(0, guard.engine.now() - _MARGIN)
        guard.store.set_budget(self._account, Budget(self._limit), ephemeral=True)
        self._folder = Path(tempfile.mkdtemp(prefix="budgetguard-run-"))
        self._log = self._folder / _LOG
        self._log.touch(mode=0o600)

    @property
    def runs(self) -> tuple[str, ...]:
        """The ids of this run and of the runs around it."""
        return (*self._guard.settings.runs, self.id)

    def variables(self) -> dict[str, str]:
        """Return the environment variables that make a process, and all that it starts, part of the run."""
        settings = self._guard.settings
        logs = [name for name in os.environ.get(runlog.VARIABLE, "").split(os.pathsep) if name]
        found = {
            "BUDGETGUARD_STORE": _lasting(
                settings.store if isinstance(settings.store, str) else settings.store.url
            ),
            "BUDGETGUARD_RUNS": ",".join(self.runs),
            "BUDGETGUARD_RUN_PYTHON": sys.implementation.cache_tag or "",
            "BUDGETGUARD_RUN_PATH": os.pathsep.join(_homes()),
            runlog.VARIABLE: os.pathsep.join([*logs, str(self._log)]),
            "PYTHONPATH": _with_ours(os.environ.get("PYTHONPATH", "")),
        }
        found["BUDGETGUARD_UNGUARDED"] = settings.unguarded or "warn"
        if settings.provider_hosts:
            found["BUDGETGUARD_PROVIDER_HOSTS"] = ",".join(settings.provider_hosts)
        # Not the default project: a program may choose its own, and is then told to name it here.
        if settings.project is not None:
            found["BUDGETGUARD_PROJECT"] = settings.project
        if settings.user is not None:
            found["BUDGETGUARD_USER"] = settings.user
        # In full, for programs in other folders, and with another home.
        book = self._guard.engine.prices
        if book.file is not None:
            found["BUDGETGUARD_PRICES"] = str(book.file.path)
        found["BUDGETGUARD_PRICE_LIST"] = "none" if book.list.path is None else str(book.list.path)
        if settings.default_budget is not None:
            found["BUDGETGUARD_DEFAULT_BUDGET"] = str(settings.default_budget)
        return found

    def outcome(self, unguarded: Iterable[str] = ()) -> RunOutcome:
        """Return the run's outcome so far.

        Args:
            unguarded: SDKs that this process has imported and that are not guarded.

        Raises:
            StoreError: the store failed.
        """
        guard = self._guard
        account = guard.store.read(self._account)
        records = guard.calls(to_datetime(self._since))
        told = list(runlog.read(self._log))
        return RunOutcome(
            run=self.id,
            project=guard.project,
            user=guard.settings.user,
            limit=self._limit,
            held=0 if account is None else account.held_nanos,
            left=_left(guard, self._account if self._limit is not None else None),
            report=summarize((one for one in records if self._account in one.accounts), ["model"]),
            refusals=tuple(one for one in told if isinstance(one, Refusal)),
            unguarded=tuple(sorted({*unguarded, *(one for one in told if isinstance(one, str))})),
            around=_addresses(told, refused=False),
            blocked=_addresses(told, refused=True),
        )

    def close(self) -> None:
        """Remove the run's files. Its account stays, and limits processes that live on."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _addresses(told: Iterable[object], *, refused: bool) -> tuple[str, ...]:
    found = {one.address for one in told if isinstance(one, GoneAround) and one.refused is refused}
    return tuple(sorted(found))


def joins_unasked(command: str) -> bool:
    """Return whether a command is a Python that joins runs even if it ignores its `PYTHON*` variables.

    That is the Python that runs this, if a wheel of budgetguard was installed for it.
    """
    found = shutil.which(command)
    if found is None or not (Path(sysconfig.get_path("purelib")) / _STARTER).is_file():
        return False
    mine = Path(sys.executable)
    return mine.parent.samefile(Path(found).parent) and mine.samefile(found)


def _check_limited(guard: Guard, *, limited: bool) -> None:
    settings = guard.settings
    if settings.user is not None and settings.default is None:
        guard.balance(settings.user)
    if limited or settings.user is not None or settings.missing_user == "allow":
        return
    project = guard.store.read(account_name(PROJECT, guard.project))
    if project is None or project.limit_nanos is None:
        raise ConfigurationError(
            "nothing limits this run: give it a budget with --max-budget 5 (BUDGETGUARD_MAX_BUDGET), or a "
            "user who pays with --user 1234 (BUDGETGUARD_USER)"
        )


def _left(guard: Guard, run: str | None) -> int | None:
    """Return what is left (Nanos): of the run if it has a limit, else of its user, else of the project."""
    user = guard.settings.user
    name = run or (account_name(USER, user) if user else account_name(PROJECT, guard.project))
    balance = guard.store.read(name)
    return None if balance is None else balance.available_nanos


def _lasting(url: str) -> str:
    """Return a store's URL as programs in any folder, and with another home, can open it."""
    if not url.startswith("disk://"):
        return url
    _, mark, options = url.partition("?")
    return f"disk://{disk_target(url)[0]}{mark}{options}"


def _with_ours(path: str) -> str:
    others = [folder for folder in path.split(os.pathsep) if folder != str(_ON_PATH)] if path else []
    return os.pathsep.join([str(_ON_PATH), *others])


def _homes() -> list[str]:
    """Return the folders from which this Python imports budgetguard and its dependencies."""
    origins = [spec.origin for name in _NEEDED if (spec := find_spec(name)) is not None and spec.origin]
    return list(dict.fromkeys(str(Path(origin).parent.parent) for origin in origins))
