"""The hosts that are known, and the file that knows them, which Pythons without budgetguard read."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from genai_prices.data_snapshot import get_snapshot

from budgetguard.launch import run
from budgetguard.pricing import hosts
from budgetguard.pricing.hosts import PROVIDER_HOSTS, Hosts, parsed, target_of
from budgetguard.pricing.matching import _MORE_ADDRESSES, _is_at

KNOWN = Hosts()
# Providers of the price list whose hosts serve much else, and one that is a router's path.
NOT_BY_HOST = {"cloudflare", "databricks", "modal"}


@pytest.mark.parametrize(
    "host",
    [
        "api.openai.com",
        "eu.api.openai.com",
        "my-resource.openai.azure.com",
        "api.anthropic.com",
        "generativelanguage.googleapis.com",
        "us-central1-aiplatform.googleapis.com",
        "aiplatform.googleapis.com",
        "aiplatform.eu.rep.googleapis.com",
        "bedrock-runtime.us-east-1.amazonaws.com",
        "bedrock-runtime.cn-north-1.amazonaws.com.cn",
        "vpce-0a1b.bedrock-runtime.eu-west-1.vpce.amazonaws.com",
        "api.groq.com",
        "api.cerebras.ai",
        "api.together.xyz",
        "api.mistral.ai",
        "api.cohere.com",
        "openrouter.ai",
        "api.x.ai",
        "api.deepseek.com",
        "api.perplexity.ai",
        "api.fireworks.ai",
        "API.OpenAI.com",
        "api.openai.com.",
        b"api.openai.com",
    ],
)
def test_providers_are_known(host: object) -> None:
    assert KNOWN.address(host, 443) == hosts.plain(host)
    assert KNOWN.knows(host)


@pytest.mark.parametrize(
    "host",
    [
        "openai.com",
        "platform.openai.com",
        "www.anthropic.com",
        "huggingface.co",
        "storage.googleapis.com",
        "oauth2.googleapis.com",
        "s3.amazonaws.com",
        "bedrock.us-east-1.amazonaws.com",
        "bedrock-runtime.amazonaws.com",
        "login.microsoftonline.com",
        "api.github.com",
        "openai.azure.com",
        ".openai.azure.com",
        "api.openai.com.evil.example",
        "notapi.openai.com",
        "localhost",
        "127.0.0.1",
        "::1",
        "",
        "a b.openai.azure.com",
        'a".openai.azure.com',
        "ä.openai.azure.com",
        None,
        443,
        bytearray(b"api.openai.com"),
        ["api.openai.com"],
    ],
)
def test_others_are_not(host: object) -> None:
    assert KNOWN.address(host, 443) is None
    assert not KNOWN.knows(host)


def test_every_provider_of_the_price_list_is_known_by_its_host() -> None:
    addresses = [f"https://{host.replace('*', 'eu')}" for host in PROVIDER_HOSTS]
    patterns = [(one.id, one.api_pattern) for one in get_snapshot().providers]
    unknown = {
        name
        for name, pattern in (*patterns, *_MORE_ADDRESSES)
        # A router's models are told apart by a path.
        if not any(
            _is_at(pattern, at + path) for at in addresses for path in ("", f"/{name.partition('_')[2]}")
        )
    }
    assert unknown == NOT_BY_HOST


def test_each_host_is_listed_once_and_can_be_read() -> None:
    assert len(set(PROVIDER_HOSTS)) == len(PROVIDER_HOSTS)
    for host in PROVIDER_HOSTS:
        assert parsed(host) == (host, None)


@pytest.mark.parametrize(
    ("entry", "read"),
    [
        ("llm.example.com", ("llm.example.com", None)),
        ("LLM.example.com.:8080", ("llm.example.com.".rstrip("."), 8080)),
        ("*.example.com", ("*.example.com", None)),
        ("127.0.0.1:4000", ("127.0.0.1", 4000)),
        ("[::1]:4000", ("::1", 4000)),
        ("::1", ("::1", None)),
        ("https://example.com", None),
        ("example.com/v1", None),
        ("example.com:http", None),
        ("example.com:65536", None),
        ("*", None),
        ("*.", None),
        ("", None),
        (None, None),
    ],
)
def test_entries(entry: object, read: object) -> None:
    assert parsed(entry) == read


def test_an_entry_with_a_port_is_known_there_only() -> None:
    some = Hosts(["localhost:80", "localhost:81", "any.example"])
    assert some.address("localhost", 80) == "localhost:80"
    assert some.address("localhost", "81") == "localhost:81"
    assert some.address("localhost", 82) is None
    assert some.address("localhost", None) is None
    assert some.address("localhost", "http") is None
    assert some.address("any.example", None) == "any.example"


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_MOST_REMEMBERED", 4)
    some = Hosts()
    for number in range(50):
        assert some.address(f"host-{number}", 1) is None
    assert len(some._found) <= 4


def test_events_without_a_host() -> None:
    assert target_of("socket.connect", (None, "/a/unix/socket")) is None
    assert target_of("http.client.send", (object(), b"")) == (None, None)


def test_the_file_can_be_read_alone_and_by_older_pythons() -> None:
    tree = ast.parse(Path(hosts.__file__).read_text(), feature_version=(3, 8))
    imports = [one for one in tree.body if isinstance(one, ast.Import | ast.ImportFrom)]
    assert [one.module for one in imports if isinstance(one, ast.ImportFrom)] == ["__future__"]
    assert len(imports) == 1


def test_a_run_listens_to_the_same_events() -> None:
    source = (run._ON_PATH / "_budgetguard_run.py").read_text()
    (events,) = [
        ast.literal_eval(one.value)
        for one in ast.parse(source, feature_version=(3, 8)).body
        if isinstance(one, ast.Assign) and getattr(one.targets[0], "id", "") == "_CONNECTS"
    ]
    assert events == hosts.EVENTS
