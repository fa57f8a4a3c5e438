"""A run: the budget that a program and all processes that it starts share, and how they join it."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from budgetguard.core.accounts import PROJECT, RUN, Budget, account_name
from budgetguard.core.money import Nanos
from budgetguard.core.report import summarize
from budgetguard.core.windows import Milliseconds, to_datetime
from budgetguard.engine import runlog
from budgetguard.errors import ConfigurationError
from budgetguard.guard import Guard
from budgetguard.launch.outcome import RunOutcome
from budgetguard.stores.targets import disk_target

_ON_PATH: Final = Path(__file__).parent / "onpath"
_LOG: Final = "refused"
_STARTER: Final = "budgetguard_run.pth"
_NEEDED: Final = ("budgetguard", "wrapt", "contextvars_extras", "tiktoken", "diskcache", "genai_prices")
# Records have the time of their own process, whose clock may have been set back since.
_MARGIN: Final[Milliseconds] = 60_000


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
        # Not the default project: a program may choose its own, and is then told to name it here.
        if settings.project is not None:
            found["BUDGETGUARD_PROJECT"] = settings.project
        if settings.user is not None:
            found["BUDGETGUARD_USER"] = settings.user
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
            refusals=tuple(one for one in told if not isinstance(one, str)),
            unguarded=tuple(sorted({*unguarded, *(one for one in told if isinstance(one, str))})),
        )

    def close(self) -> None:
        """Remove the run's files. Its account stays, and limits processes that live on."""
        shutil.rmtree(self._folder, ignore_errors=True)


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
    name = run or (account_name("user", user) if user else account_name(PROJECT, guard.project))
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
