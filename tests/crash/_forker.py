"""Fork workers, round after round: one interpreter imports, its children work and are killed."""

from __future__ import annotations

import os
import signal
import sys

import _worker


def main(url: str, workers: int) -> None:
    for _ in sys.stdin:
        children = [_fork(url) for _ in range(workers)]
        _say("pids", *children)
        for child in children:
            os.kill(child, signal.SIGUSR1)
        ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        _say("ends", *ends)


def _fork(url: str) -> int:
    child = os.fork()
    if child == 0:
        try:
            signal.sigwait({signal.SIGUSR1})  # the ids are told before any worker speaks
            _worker.main(url)
        finally:
            os._exit(3)  # a worker ends by being killed, or has failed
    return child


def _say(what: str, *numbers: int) -> None:
    os.write(1, " ".join([what, *map(str, numbers)]).encode() + b"\n")


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    main(sys.argv[1], int(sys.argv[2]))
