"""URLs of Redis stores: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from budgetguard.errors import ConfigurationError
from budgetguard.stores import open_store
from budgetguard.stores.targets import REDIS_SCHEMES, RedisTarget, redis_target

MEANINGS = {
    "redis://h": RedisTarget("server", (("h", 6379),)),
    "valkey://h:1/2": RedisTarget("server", (("h", 1),), database=2),
    "redis://h:1/": RedisTarget("server", (("h", 1),)),
    "rediss://u:p%40%2F@h": RedisTarget("server", (("h", 6379),), username="u", password="p@/", tls=True),
    "redis://:p@h?timeout=0.5": RedisTarget("server", (("h", 6379),), password="p", timeout=0.5),
    "redis://u:a:b@[::1]:7": RedisTarget("server", (("::1", 7),), username="u", password="a:b"),
    "valkeys://h?ssl_ca_certs=/ca&ssl_verify=no": RedisTarget(
        "server", (("h", 6379),), tls=True, options=(("ssl_ca_certs", "/ca"), ("ssl_verify", False))
    ),
    "redis+sentinel://a,b:2/main": RedisTarget("sentinel", (("a", 26379), ("b", 2)), "main"),
    "valkey+sentinel://u:p@a/main/3?sentinel_username=s&sentinel_password=t%26": RedisTarget(
        "sentinel",
        (("a", 26379),),
        "main",
        database=3,
        username="u",
        password="p",
        sentinel_username="s",
        sentinel_password="t&",
    ),
    "rediss+cluster://a:1,[fe80::1]:2/0": RedisTarget("cluster", (("a", 1), ("fe80::1", 2)), tls=True),
    "redis+unix:///run/a%20b.sock": RedisTarget("unix", path="/run/a b.sock"),
    "valkey+unix://:p@/run/s.sock": RedisTarget("unix", path="/run/s.sock", password="p"),
}


@pytest.mark.parametrize("url", MEANINGS)
def test_a_url_names_a_server(url: str) -> None:
    assert redis_target(url) == MEANINGS[url]


BAD = {
    "redis://": "is no host",
    "redis://h:0": "is no host",
    "redis://h:65536": "is no host",
    "redis://h:port": "is no host",
    "redis://h:1:2": "is no host",
    "redis://::1": "is no host.*IPv6 in brackets",
    "redis://a,b": r"write redis\+sentinel:// or redis\+cluster://",
    "redis+cluster://a,": "is no host",
    "redis://h/x": "is no database: write its number",
    "redis://h/1/2": "is no database",
    "redis://h/-1": "is no database",
    "redis+cluster://h/1": "a cluster has database 0 only",
    "redis+sentinel://a,b": "names no service: write redis\\+sentinel://HOST,HOST/SERVICE",
    "redis+unix://run/s.sock": "names no socket: write redis\\+unix:///path",
    "redis://h?timeout=": "timeout must be a number of seconds",
    "redis://h?timeout=0": "timeout must be a number of seconds",
    "redis://h?timeout=nan": "timeout must be a number of seconds",
    "redis://h?db=1": "unknown option 'db'; it takes timeout",
    "redis://h?ssl_verify=no": "write rediss:// or valkeys://",
    "rediss://h?ssl_verify=false": "ssl_verify must be yes or no",
}


@pytest.mark.parametrize("url", BAD)
def test_a_url_that_names_none_is_refused_with_the_remedy(url: str) -> None:
    with pytest.raises(ConfigurationError, match=BAD[url]):
        open_store(url, project="p")


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2@h:port",
        "redis://user:hunter2@a,b",
        "redis://user:hun/ter2@h",
        "redis://user:hun?ter2@h",
        "redis+sentinel://user:hunter2@a",
        "redis+sentinel://a/s/x?sentinel_password=hunter2",
        "redis+unix://:hunter2@run",
        "redis://user:hunter2@h?timeout=x",
        "reids://user:hunter2@h",
    ],
)
def test_no_refusal_shows_a_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_store(url, project="p")
    assert "hun" not in str(caught.value)
    assert "ter2" not in str(caught.value)


def test_a_target_shows_no_password() -> None:
    target = redis_target("redis+sentinel://u:hunter2@a/s?sentinel_password=hunter3")
    assert "hunter" not in str(target) + repr(target)


@pytest.mark.parametrize("scheme", ["redis", "valkeys", "valkey+cluster"])
def test_without_the_redis_package_the_remedy_is_named(scheme: str) -> None:
    assert scheme in REDIS_SCHEMES
    program = (
        "import sys; sys.modules['redis'] = None\n"
        "from budgetguard.stores import open_store\n"
        "from budgetguard.errors import ConfigurationError\n"
        f"try: open_store('{scheme}://h', project='p')\n"
        "except ConfigurationError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "pip install 'budgetguard-ai[redis]'" in done.stdout


def test_nobody_who_uses_no_redis_store_imports_redis() -> None:
    program = "import sys, budgetguard, budgetguard.stores; print('redis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
