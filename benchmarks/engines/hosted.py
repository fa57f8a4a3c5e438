"""`http://` against the same service's `/healthz`, which touches no store: what HTTP alone takes."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from budgetguard.core.accounts import Budget
from budgetguard.stores import open_store
from budgetguard.stores.hosted_link import HostedLink
from budgetguard.stores.targets import service_target
from engines import LIMIT, PROJECT, Pair, Unavailable

NAME = "hosted"
FLOOR = "two GET /healthz of the same service (one worker, on a disk store), over one connection that is kept"


@contextmanager
def opened(users: int) -> Iterator[Pair]:
    sys.path.append(str(Path(__file__).parents[2]))  # where the tests keep their servers
    try:
        from tests.server.hosted_process import ServeProcess
    except ImportError as error:
        raise Unavailable(f"{error}: pip install 'budgetguard-ai[server,cli]'") from error
    with tempfile.TemporaryDirectory() as folder:
        beneath = open_store(f"disk://{folder}/store", project=PROJECT)
        for user in range(users):
            beneath.set_budget(f"user:{user}", Budget(LIMIT))
        beneath.close()
        service = ServeProcess(beneath.url, Path(folder) / "log")
        try:
            store = open_store(service.url, project=PROJECT)
            link = HostedLink(service_target(service.url))

            def floor(_user: int) -> None:
                for _ in range(2):
                    assert link.ask("GET", "/healthz").status == 200

            yield Pair(store, floor)
            link.close()
            store.close()
        finally:
            service.kill()
