"""What the tests of the command line share: running it, and calls to look at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from typer.testing import CliRunner

from budgetguard.cli.app import app
from budgetguard.core.holds import VOID, Charge, Granted, Hold, Settlement, new_hold_id
from budgetguard.core.money import Nanos
from budgetguard.core.usage import Usage
from budgetguard.guard import Guard

COMMAND = [sys.executable, "-c", "from budgetguard.cli import main; main()"]
VIEW = ("COLUMNS", "NO_COLOR", "FORCE_COLOR")
DAY = 86_400_000


def clean_environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BUDGETGUARD_", "OPENAI_")) and name not in VIEW
    }
    return {**kept, "PYTHONIOENCODING": "utf-8", "TZ": "UTC"}


@dataclass(frozen=True, slots=True)
class Done:
    """One run of the command."""

    code: int
    out: str
    err: str

    @property
    def object(self) -> Any:
        return json.loads(self.out)

    @property
    def objects(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> Any:
        return json.loads(self.err)


Command: TypeAlias = Callable[..., Done]


def run(*arguments: str, **environ: str) -> Done:
    """Run the command in a process of its own."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        env={**clean_environment(), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        encoding="utf-8",
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def run_here(*arguments: str, **environ: str) -> Done:
    """Run the command in this process."""
    done = CliRunner().invoke(app, arguments, prog_name="budgetguard", env=environ)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


def book(
    guard: Guard,
    user: str | None,
    cost: Nanos,
    *,
    model: str = "gpt-4o-mini",
    ago: int = 0,
    end: str = "settled",
    tokens: tuple[int, int] = (100, 50),
    endpoint: str = "chat",
    tags: tuple[str, ...] = (),
) -> str:
    """Make a call through the store, as a guard does, `ago` milliseconds ago; return its hold's id."""
    made = guard.engine.now() - ago
    account = f"project:{guard.project}" if user is None else f"user:{user}"
    hold = Hold(
        id=new_hold_id(made),
        charges=(Charge(account),),
        amount=cost * 2,
        on_expiry=cost,
        ttl=900_000 + ago,
        created=made,
        user=user,
        model=model,
        endpoint=endpoint,
        tags=tags,
    )
    assert isinstance(guard.store.reserve(hold), Granted)
    if end == "settled":
        usage = Usage.of(input_tokens=tokens[0], output_tokens=tokens[1])
        guard.store.settle(hold, Settlement(cost, usage=usage))
    elif end == "voided":
        guard.store.settle(hold, VOID)
    return hold.id
