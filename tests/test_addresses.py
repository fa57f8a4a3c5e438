"""What is free is what was declared free, and nothing that merely looks like it."""

import string
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetguard.config import Settings

LOCAL = "http://localhost:11434/v1"
SIX = "http://[::1]:8000"


@pytest.mark.parametrize(
    ("free", "url"),
    [
        (LOCAL, "http://localhost:11434/v1"),
        (LOCAL, "http://localhost:11434/v1/"),
        (LOCAL, "http://localhost:11434/v1/chat/completions"),
        (LOCAL, "HTTP://LocalHost:11434/v1/chat/completions?stream=1"),
        (LOCAL + "/", "http://localhost:11434/v1/chat/completions"),
        ("http://127.0.0.1", "http://127.0.0.1:80/v1/chat/completions"),
        ("https://gpu.example:443/v1", "https://gpu.example/v1/embeddings"),
        (SIX, "http://[0:0:0:0:0:0:0:1]:8000/v1/chat/completions"),
        ("http://[0::1]:8000", "http://[::1]:8000/v1/chat/completions"),
    ],
)
def test_a_declared_address_and_what_lies_below_it_are_free(free: str, url: str) -> None:
    assert Settings(free_base_urls=("http://other:1", free)).is_free(url)


@pytest.mark.parametrize(
    ("free", "url"),
    [
        (LOCAL, "https://localhost:11434/v1/chat/completions"),
        (LOCAL, "http://localhost:11435/v1/chat/completions"),
        (LOCAL, "http://localhost/v1/chat/completions"),
        (LOCAL, "http://localhost:114340/v1/chat/completions"),
        (LOCAL, "http://localhost:11434/v10/chat/completions"),
        (LOCAL, "http://localhost:11434/chat/completions"),
        (LOCAL, "http://localhost:11434/V1/chat/completions"),
        (LOCAL, "http://localhost:11434/v1/../paid"),
        (LOCAL, "http://localhost:11434/v1/%2e%2e/paid"),
        (LOCAL, "http://localhost:11434/v1/..%2fpaid"),
        (LOCAL, "http://localhost:11434@api.openai.com/v1/chat/completions"),
        (LOCAL, "http://api.openai.com@localhost:11434/v1/chat/completions"),
        (LOCAL, "http://localhost:11434.evil.example/v1"),
        (LOCAL, "http://localhost.evil.example:11434/v1"),
        (LOCAL, "http://evil.localhost:11434/v1"),
        (LOCAL, "http://localhost:11434\\@api.openai.com/v1"),
        (LOCAL, "http://localhost:11434/v1\n/chat"),
        (LOCAL, "http:/localhost:11434/v1/chat/completions"),
        (LOCAL, "//localhost:11434/v1/chat/completions"),
        (LOCAL, "/v1/chat/completions"),
        (LOCAL, "http://localhost:port/v1"),
        (LOCAL, "http://loc\N{LATIN SMALL LETTER A WITH RING ABOVE}lhost:11434/v1"),
        (LOCAL, "http://127.0.0.1:11434/v1"),
        (LOCAL, "http://localhost.:11434/v1"),
        ("http://127.0.0.1", "http://127.0.0.10/v1"),
        (SIX, "http://[::1]:80/v1"),
        (SIX, "http://[::11]:8000/v1"),
        (SIX, "http://[::ffff:127.0.0.1]:8000/v1"),
        (SIX, "http://[::1.evil.example]:8000/v1"),
        (SIX, "http://[::1]evil.example:8000/v1"),
    ],
)
def test_what_only_looks_like_a_declared_address_is_not_free(free: str, url: str) -> None:
    assert not Settings(free_base_urls=(free,)).is_free(url)


def test_nothing_is_free_that_nobody_declared() -> None:
    assert not Settings().is_free(LOCAL)


@given(st.text(string.ascii_letters + string.digits + ":/@\\.#?[]%", max_size=24))
def test_whatever_follows_a_host_what_is_free_is_at_that_host_and_port(tail: str) -> None:
    url = "http://localhost:11434" + tail
    if Settings(free_base_urls=("http://localhost:11434",)).is_free(url):
        parts = urlsplit(url)
        assert (parts.hostname, parts.port, parts.username) == ("localhost", 11434, None)
