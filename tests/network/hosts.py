"""Hosts on a network of their own: namespaces with a link each to this machine, which can be cut and mended.

A cut link loses packets without a word, as a pulled cable does: nobody is told that a connection is gone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.watchdog import undo_at_the_end

ROOT = Path(__file__).parents[2]


def why_not() -> str | None:
    """Say why this machine cannot make hosts; None if it can."""
    if shutil.which("ip") is None:
        return "there is no ip command (iproute2)"
    name = f"bg{uuid.uuid4().hex[:8]}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"namespaces cannot be made here: {made.stderr.strip()}"
    _ip("netns", "delete", name)
    return None


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Host:
    """One host and its link.

    Args:
        number: 1 to 200; its network is 10.77.NUMBER.0/24, where this machine is .1 and the host .2.
    """

    def __init__(self, number: int) -> None:
        self._name = f"bg{uuid.uuid4().hex[:8]}"
        self._ours = f"{self._name}a"
        self.gateway = f"10.77.{number}.1"
        self._undo = undo_at_the_end("ip", "netns", "delete", self._name)
        _ip("netns", "add", self._name)
        try:
            _ip("link", "add", self._ours, "type", "veth", "peer", "name", "eth0", "netns", self._name)
            _ip("address", "add", f"{self.gateway}/24", "dev", self._ours)
            _ip("link", "set", self._ours, "up")
            _ip("-n", self._name, "address", "add", f"10.77.{number}.2/24", "dev", "eth0")
            _ip("-n", self._name, "link", "set", "eth0", "up")
            _ip("-n", self._name, "link", "set", "lo", "up")
        except BaseException:
            self.remove()
            raise

    def cut(self) -> None:
        """Lose every packet from now on."""
        _ip("-n", self._name, "link", "set", "eth0", "down")

    def mend(self) -> None:
        """Lose no more packets."""
        _ip("-n", self._name, "link", "set", "eth0", "up")

    def remove(self) -> None:
        """Take the host and its link away."""
        with suppress(subprocess.CalledProcessError):
            _ip("netns", "delete", self._name)
        self._undo.unlink(missing_ok=True)

    def start(self, code: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """Start a Python program on the host; talk to it over its pipes."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self._name, sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environ},
        )


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Make two hosts, and take them away afterwards."""
    # Workers of one test run must not share networks.
    first = 2 * int("".join(filter(str.isdigit, os.environ.get("PYTEST_XDIST_WORKER", "0"))) or 0) + 1
    hosts: list[Any] = []
    try:
        for number in (first, first + 1):
            hosts.append(Host(number))
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:
            host.remove()
