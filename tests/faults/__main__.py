"""Run guarded calls through every fault there is: `python -m tests.faults --seed 7 --steps 10000`."""

from __future__ import annotations

import argparse
import logging
import secrets
import sys
import time

from .episodes import STEPS, Failure, run, served


def main() -> int:
    """Run, and say how it went. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="repeat this run; by default a new one")
    parser.add_argument("--steps", type=int, default=20_000, help="how many (default %(default)s)")
    parser.add_argument(
        "--store", default="memory://", help="URL, valkey, postgres or hosted (default %(default)s)"
    )
    parser.add_argument("--episode", type=int, default=0, help=f"begin with this one; each has {STEPS} steps")
    given = parser.parse_args()
    logging.getLogger("budgetguard").setLevel(logging.CRITICAL)
    seed = secrets.randbelow(10**9) if given.seed is None else given.seed
    print(f"seed {seed}, {given.steps} steps, {given.store}", flush=True)
    began, done = time.monotonic(), 0
    with served(given.store) as url:
        for outcome in run(seed, given.steps, url, first=given.episode):
            if isinstance(outcome, Failure):
                _tell(outcome, given.store)
                return 1
            done += outcome
            if sys.stdout.isatty():
                print(f"\r{done} steps, {done / (time.monotonic() - began):.0f} a second", end="", flush=True)
    print(f"\n{done} steps, and every law held")
    return 0


def _tell(failure: Failure, store: str) -> None:
    print("\n".join(failure.happened))
    print(f"\nBROKEN after step {failure.step} of episode {failure.episode}: {failure.law}")
    print(
        f"Repeat it: python -m tests.faults --seed {failure.seed} --episode {failure.episode} "
        f"--steps {STEPS} --store {store}"
    )


if __name__ == "__main__":
    sys.exit(main())
