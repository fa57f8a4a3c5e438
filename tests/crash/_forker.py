"""Fork workers, say their ids, and wait until all have been killed."""

from __future__ import annotations

import os
import signal
import sys

import _worker


def main(url: str, workers: int) -> int:
    children = []
    for _ in range(workers):
        child = os.fork()
        if child == 0:
            try:
                # Held until the parent has told every id: ids and calls must not mix on stdout.
                signal.sigwait({signal.SIGUSR1})
                _worker.main(url)
            finally:
                os._exit(3)  # a worker ends by being killed, or has failed
        children.append(child)
    for child in children:
        os.write(1, f"{child}\n".encode())
    for child in children:
        os.kill(child, signal.SIGUSR1)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return 0 if ends == [-signal.SIGKILL] * workers else 1


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
