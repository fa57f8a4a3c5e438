"""Cluster and Sentinel, of real nodes: slots that move, masters that die."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest
import redis

from budgetguard.errors import StoreError
from budgetguard.stores import Store, open_store
from tests.servers.valkey import ValkeyServer

from .conftest import Start
from .helpers import at_most, budget, granted, make_hold, money, settled

SLOTS = 16_384


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for something that is also not so while servers restart, fail over and cut their clients off."""
    give_up = time.monotonic() + 60
    while True:
        with contextlib.suppress(redis.RedisError):
            if holds():
                return
        assert time.monotonic() < give_up, "it never came about"
        time.sleep(0.02)


def ask(server: ValkeyServer, *words: object) -> object:
    with server.client() as client:
        return client.execute_command(*words)


def node_id(server: ValkeyServer) -> str:
    answer = ask(server, "CLUSTER", "MYID")
    assert isinstance(answer, bytes)
    return answer.decode()


@pytest.fixture
def nodes(start: Start) -> list[ValkeyServer]:
    """Return three nodes of a cluster, with a third of the slots each."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
    nodes = [start(*options, name=f"node{number}") for number in range(3)]
    for number, node in enumerate(nodes):
        first, last = number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1
        ask(node, "CLUSTER", "ADDSLOTSRANGE", first, last)
        ask(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for node in nodes[1:]:
        ask(nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port)
    wait_until(lambda: all("cluster_state:ok" in _info(node) for node in nodes))
    wait_until(lambda: all("cluster_known_nodes:3" in _info(node) for node in nodes))
    return nodes


def _info(node: ValkeyServer) -> str:
    with node.client() as client:
        return "".join(f"{key}:{value};" for key, value in client.cluster("INFO").items())


def _url(nodes: list[ValkeyServer], timeout: float = 20) -> str:
    return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in nodes)}?timeout={timeout}"


def _home(nodes: list[ValkeyServer], project: str) -> int:
    """Return the number of the node that has a project's slot."""
    slot = ask(nodes[0], "CLUSTER", "KEYSLOT", f"bg:2:{{{project}}}:")
    assert isinstance(slot, int)
    return next(n for n in range(3) if n * SLOTS // 3 <= slot <= (n + 1) * SLOTS // 3 - 1)


def _spend(store: Store, amount: int) -> None:
    settled(store, granted(store, make_hold(amount)), amount)


@pytest.mark.full
def test_projects_live_on_all_nodes_of_a_cluster_and_each_on_one(nodes: list[ValkeyServer]) -> None:
    projects = [f"p{number}" for number in range(9)]
    assert {_home(nodes, project) for project in projects} == {0, 1, 2}
    for project in projects:
        store = open_store(_url(nodes[:1]), project=project)
        budget(store, 100, duration="daily")
        budget(store, 1_000, "project:p")
        settled(store, granted(store, make_hold(60, "user:1", "project:p")), 40)
        assert (money(store), money(store, "project:p")) == ((100, 40, 0), (1_000, 40, 0))
        assert store.delete("project:p")
        assert [balance.account for balance in store.list()] == ["user:1"]
        assert len(list(store.calls())) == 1
        store.close()
    for number, node in enumerate(nodes):
        with node.client() as client:
            found = {key.decode().split("{")[1].split("}")[0] for key in client.keys("*")}
        assert found == {project for project in projects if _home(nodes, project) == number}


@pytest.mark.full
def test_a_store_follows_its_slot_to_another_node(nodes: list[ValkeyServer]) -> None:
    store = open_store(_url(nodes), project="p")
    budget(store, 100)
    _spend(store, 40)
    home = _home(nodes, "p")
    there = (home + 1) % 3
    _move(nodes, home, there)
    assert money(store) == (100, 40, 0)
    _spend(store, 60)
    with nodes[home].client() as client:
        assert client.keys("*") == []
    store.close()


@pytest.mark.full
def test_a_slot_that_is_half_moved_is_a_store_error_and_never_a_missing_budget(
    nodes: list[ValkeyServer],
) -> None:
    store = open_store(_url(nodes, timeout=0.5), project="p")
    budget(store, 100)
    home = _home(nodes, "p")
    there = (home + 1) % 3
    slot = ask(nodes[0], "CLUSTER", "KEYSLOT", "bg:2:{p}:")
    ask(nodes[there], "CLUSTER", "SETSLOT", slot, "IMPORTING", node_id(nodes[home]))
    ask(nodes[home], "CLUSTER", "SETSLOT", slot, "MIGRATING", node_id(nodes[there]))
    ask(nodes[home], "MIGRATE", "127.0.0.1", nodes[there].port, "bg:2:{p}:a:user:1", 0, 5_000)
    with at_most(0.5), pytest.raises(StoreError, match="moving the project's slot"):
        store.reserve(make_hold(10))
    with at_most(0.5), pytest.raises(StoreError, match="moving the project's slot"):
        store.read("user:1")
    _finish(nodes, home, there, slot)
    assert money(store) == (100, 0, 0)
    store.close()


@pytest.mark.full
def test_a_node_that_died_is_a_store_error_for_its_projects_and_nothing_to_the_others(
    nodes: list[ValkeyServer],
) -> None:
    projects = {_home(nodes, f"p{number}"): f"p{number}" for number in range(9)}
    for node in nodes:
        ask(node, "CONFIG", "SET", "cluster-require-full-coverage", "no")
    stores = {home: open_store(_url(nodes, timeout=1), project=projects[home]) for home in range(3)}
    for store in stores.values():
        budget(store, 100)
    nodes[0].kill()
    with at_most(1), pytest.raises(StoreError):
        stores[0].reserve(make_hold(10))
    again = open_store(_url(nodes, timeout=5), project=projects[1])
    for store in (stores[1], stores[2], again):
        _spend(store, 10)
    for store in (*stores.values(), again):
        store.close()


@pytest.mark.full
def test_a_store_finds_a_replica_that_took_over_when_all_nodes_of_its_url_are_dead(
    nodes: list[ValkeyServer], start: Start
) -> None:
    project = next(f"p{n}" for n in range(9) if _home(nodes, f"p{n}") == 1)
    replica = start("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", name="replica")
    ask(replica, "CLUSTER", "MEET", "127.0.0.1", nodes[1].port)
    wait_until(lambda: all("cluster_known_nodes:4" in _info(node) for node in (*nodes, replica)))
    ask(replica, "CLUSTER", "REPLICATE", node_id(nodes[1]))
    for node in (*nodes, replica):
        ask(node, "CONFIG", "SET", "cluster-require-full-coverage", "no")
    wait_until(lambda: _knows_replica(nodes[0], replica.port))
    store = open_store(_url(nodes[:1], timeout=60), project=project)
    budget(store, 100)
    _spend(store, 10)
    with nodes[1].client() as client:
        wait_until(lambda: client.wait(1, 1_000) == 1)
    nodes[0].kill()
    nodes[1].kill()
    ask(replica, "CLUSTER", "FAILOVER", "TAKEOVER")
    _spend(store, 20)
    assert money(store) == (100, 30, 0)
    store.close()


def _knows_replica(node: ValkeyServer, port: int) -> bool:
    slots = ask(node, "CLUSTER", "SLOTS")
    return str(port) in str(slots)


def _move(nodes: list[ValkeyServer], home: int, there: int) -> None:
    slot = ask(nodes[0], "CLUSTER", "KEYSLOT", "bg:2:{p}:")
    ask(nodes[there], "CLUSTER", "SETSLOT", slot, "IMPORTING", node_id(nodes[home]))
    ask(nodes[home], "CLUSTER", "SETSLOT", slot, "MIGRATING", node_id(nodes[there]))
    _finish(nodes, home, there, slot)


def _finish(nodes: list[ValkeyServer], home: int, there: int, slot: object) -> None:
    keys = ask(nodes[home], "CLUSTER", "GETKEYSINSLOT", slot, 1_000)
    assert isinstance(keys, list)
    for key in keys:
        ask(nodes[home], "MIGRATE", "127.0.0.1", nodes[there].port, key, 0, 5_000)
    for node in (nodes[there], nodes[home]):
        ask(node, "CLUSTER", "SETSLOT", slot, "NODE", node_id(nodes[there]))


# Sentinel


@pytest.fixture
def watched(start: Start) -> tuple[ValkeyServer, ValkeyServer, list[ValkeyServer]]:
    """Return a master, its replica, and three Sentinels that watch them."""
    master = start(name="master")
    replica = start("--replicaof", "127.0.0.1", str(master.port), name="replica")
    settings = (
        f"sentinel monitor budgets 127.0.0.1 {master.port} 2",
        "sentinel down-after-milliseconds budgets 400",
        "sentinel failover-timeout budgets 3000",
    )
    sentinels = [start(name=f"sentinel{number}", sentinel=settings) for number in range(3)]

    def ready() -> bool:
        with master.client() as client:
            synchronous = client.info("replication")["connected_slaves"] == 1
        views = [_view(sentinel) for sentinel in sentinels]
        return synchronous and all((v["num-slaves"], v["num-other-sentinels"]) == ("1", "2") for v in views)

    wait_until(ready)
    return master, replica, sentinels


def _view(sentinel: ValkeyServer) -> dict[str, str]:
    answer = ask(sentinel, "SENTINEL", "MASTER", "budgets")
    if isinstance(answer, dict):
        return {_text(key): _text(value) for key, value in answer.items()}
    assert isinstance(answer, list)
    return {_text(key): _text(value) for key, value in zip(answer[::2], answer[1::2], strict=True)}


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@pytest.mark.full
def test_a_store_follows_the_master_when_it_dies(
    watched: tuple[ValkeyServer, ValkeyServer, list[ValkeyServer]],
) -> None:
    master, replica, sentinels = watched
    hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
    store = open_store(f"redis+sentinel://{hosts}/budgets?timeout=60", project="p")
    budget(store, 100)
    _spend(store, 30)
    call = granted(store, make_hold(50))
    with master.client() as client:
        assert client.wait(1, 30_000) == 1  # replication is asynchronous: what had not arrived would be lost
    master.kill()
    sentinels[0].kill()  # and the first Sentinel of the URL with it
    settled(store, call, 20)
    assert money(store) == (100, 50, 0)
    with replica.client() as client:
        assert client.info("replication")["role"] == "master"
    _spend(store, 50)
    store.close()


@pytest.mark.full
def test_a_master_that_was_replaced_while_it_could_not_be_reached_is_not_written_to(
    watched: tuple[ValkeyServer, ValkeyServer, list[ValkeyServer]],
) -> None:
    master, replica, sentinels = watched
    hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
    store = open_store(f"redis+sentinel://{hosts}/budgets?timeout=60", project="p")
    budget(store, 100)
    with master.client() as client:
        assert client.wait(1, 30_000) == 1
    master.pause()
    try:
        wait_until(lambda: _view(sentinels[1])["port"] == str(replica.port))
    finally:
        master.resume()
    wait_until(lambda: _role(master) == "slave")
    _spend(store, 40)
    assert money(store) == (100, 40, 0)
    with replica.client() as client:
        assert client.hget("bg:2:{p}:a:user:1", "spent") == b"40"
    store.close()


def _role(server: ValkeyServer) -> str:
    with server.client() as client:
        return str(client.info("replication")["role"])


@pytest.mark.full
def test_a_service_that_no_sentinel_knows_is_a_store_error(
    watched: tuple[ValkeyServer, ValkeyServer, list[ValkeyServer]],
) -> None:
    _, _, sentinels = watched
    with at_most(0.5), pytest.raises(StoreError, match="no Sentinel knows a master 'other'") as caught:
        open_store(f"redis+sentinel://127.0.0.1:{sentinels[0].port}/other?timeout=0.5", project="p")
    assert isinstance(caught.value.__cause__, redis.RedisError)


def test_sentinels_and_their_master_may_want_passwords_of_their_own(start: Start) -> None:
    master = start("--requirepass", "of-master")
    settings = (
        "requirepass of-sentinel",
        f"sentinel monitor budgets 127.0.0.1 {master.port} 1",
        "sentinel auth-pass budgets of-master",
    )
    sentinel = start(name="sentinel", sentinel=settings)
    url = f"redis+sentinel://:of-master@127.0.0.1:{sentinel.port}/budgets"
    store = open_store(f"{url}?sentinel_password=of-sentinel", project="p")
    budget(store, 100)
    assert money(store) == (100, 0, 0)
    store.close()
    for wrong in (url, f"{url}?sentinel_password=of-nobody"):
        with at_most(2), pytest.raises(StoreError, match="another user or password") as caught:
            open_store(wrong, project="p")
        assert "of-" not in str(caught.value)
