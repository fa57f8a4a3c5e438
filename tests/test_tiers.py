"""The two tiers, what every change must pass and what a release must pass as well, are all tests together."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHANGE, RELEASE, ALL = "not full", "full", ""


def collected(tier: str | None, *paths: str) -> set[str]:
    """Return the tests of a tier, or of a plain `pytest`."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider"]
    command += ["--import-mode=append", "-o", "console_output_style=classic", "--no-header"]
    command += [] if tier is None else ["-m", tier]
    done = subprocess.run(
        [*command, "-o", "addopts=--strict-markers" if tier is not None else "addopts=" + ADDOPTS, *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return {line for line in done.stdout.splitlines() if "::" in line}


ADDOPTS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]["ini_options"][
    "addopts"
]
