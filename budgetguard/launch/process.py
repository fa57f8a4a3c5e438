"""Run a command as a shell's `exec` would, as far as the command can see, and return its status.

It inherits standard streams, other open files, process group and terminal. So signals from the terminal
(Ctrl-C) and those to the whole group reach it directly; a signal to this process alone is passed on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final

_BY_SIGNAL: Final = 128


def run_command(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command to its end and return its status, 128 + n if signal n ended it.

    Raises:
        OSError: it cannot be started, FileNotFoundError if there is no such command.
    """
    if sys.platform == "win32":
        return _run_without_signals(command, environ)
    return _run(command, environ)


def _run_without_signals(command: Sequence[str], environ: Mapping[str, str]) -> int:
    with subprocess.Popen(command, env=environ) as child:  # noqa: S603 - what the user typed
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                continue  # the console has sent it to the child as well


if sys.platform != "win32":
    _SENT_ON: Final = (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
    )
    # What a terminal sends to all foreground processes, this one and the child.
    _FROM_TERMINALS: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)

    def _run(command: Sequence[str], environ: Mapping[str, str]) -> int:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it came ignored, nobody could wait for the child
        watched = {signal.SIGCHLD, *_SENT_ON}
        # Held back from here on and taken one by one below, so that none is lost or comes in between.
        former = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
        try:
            child = os.posix_spawnp(
                command[0],
                list(command),
                environ,
                setsigmask=former,
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores them, which is inherited
            )
            return _wait(child, watched)
        finally:
            for pending in signal.sigpending() & watched:
                signal.sigwait({pending})  # meant for the child, which is gone
            signal.pthread_sigmask(signal.SIG_SETMASK, former)

    def _wait(child: int, watched: set[signal.Signals]) -> int:
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else _BY_SIGNAL - code
            number, from_terminal = _next_signal(watched)
            if number != signal.SIGCHLD and not from_terminal:
                os.kill(child, number)

    def _next_signal(watched: set[signal.Signals]) -> tuple[int, bool]:
        """Wait for a signal; return it, and whether a terminal sent it."""
        if hasattr(signal, "sigwaitinfo"):
            info = signal.sigwaitinfo(watched)
            return info.si_signo, info.si_code > 0  # the kernel's own; those of processes are 0 or less
        number = signal.sigwait(watched)
        return number, number in _FROM_TERMINALS and _in_foreground()

    def _in_foreground() -> bool:
        try:
            terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
        except OSError:
            return False
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        except OSError:
            return False
        finally:
            os.close(terminal)
