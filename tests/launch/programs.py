"""Programs that know nothing of budgets, and what it takes to run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

COST: Final = Decimal("0.0000612")
"""USD: 8 tokens in and 100 out of gpt-4o-mini, as the tests' provider bills each call."""


def enough_for(calls: int) -> str:
    """USD for so many calls and no more; each may be projected at a little more than it costs."""
    return str(COST * calls + COST / 2)


CALL: Final = """
def call():
    from openai import OpenAI
    answer = OpenAI(max_retries=0).chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}], max_completion_tokens=100
    )
    return answer.choices[0].message.content

def calls(times, name=""):
    made = 0
    for _ in range(times):
        try:
            call()
        except Exception as error:
            assert type(error).__name__ == "BudgetExceededError", repr(error)
        else:
            made += 1
    print(f"made {made} {name}".rstrip(), flush=True)

if __name__ == "__main__":
    import sys
    calls(int(sys.argv[1]), *sys.argv[2:])
"""

BUDGETGUARD: Final = (sys.executable, "-c", "from budgetguard.cli import main; main()")


def environment(folder: Path, *, leave_out: tuple[str, ...]) -> Path:
    """Make a Python without pip that has what this one has, but for some packages and all `.pth` files."""
    venv.create(folder, with_pip=False, symlinks=True)
    target = site_packages(folder / "bin" / "python")
    for source in {Path(entry) for entry in sys.path if entry.endswith("site-packages")}:
        for path in source.iterdir():
            known = (target / path.name).exists() or path.name.startswith(("__pycache__", "_", "pip"))
            known = known or path.suffix in (".pth", ".virtualenv")
            if not known and not path.name.startswith(leave_out):
                (target / path.name).symlink_to(path)
    return folder / "bin" / "python"


def site_packages(python: Path) -> Path:
    """Return where a Python has its packages."""
    show = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.run([python, "-c", show], capture_output=True, text=True).stdout.strip())


def clean_environment() -> dict[str, str]:
    kept = ("BUDGETGUARD_", "OPENAI_", "PYTHON")
    return {name: value for name, value in os.environ.items() if not name.startswith(kept)}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    code: int
    out: str
    err: str

    @property
    def made(self) -> int:
        """How many calls the programs say that they made."""
        return sum(int(line.split()[1]) for line in self.out.splitlines() if line.startswith("made "))


@dataclass(frozen=True, slots=True)
class Launcher:
    """Runs programs in a folder, where `agent.py N` makes N calls."""

    folder: Path
    environ: dict[str, str]

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def agent(self) -> str:
        return str(self.write("agent.py", CALL))

    def run(self, *arguments: str, **environ: str) -> Ended:
        """Run `budgetguard run ARGUMENTS`."""
        return self.command([*BUDGETGUARD, "run", *arguments], environ)

    def python(self, text: str, **environ: str) -> Ended:
        """Run a program on its own."""
        return self.command([sys.executable, str(self.write("program.py", text))], environ)

    def command(self, command: Sequence[str], environ: Mapping[str, str]) -> Ended:
        done = subprocess.run(
            command,
            env={**self.environ, **environ},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Begin `budgetguard run ARGUMENTS`."""
        return subprocess.Popen(
            [*BUDGETGUARD, "run", *arguments],
            env=self.environ,
            cwd=self.folder,
            **{
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                **options,
            },
        )

    def summary(self) -> Any:
        """What `--summary-json summary.json` wrote."""
        return json.loads((self.folder / "summary.json").read_text())
