"""Tokens are counted offline, whatever the text, thread or process."""

from __future__ import annotations

import gzip
import hashlib
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetguard.errors import ConfigurationError
from budgetguard.tokens import text as tokens
from budgetguard.tokens.text import CL100K, ENCODINGS, O200K, count_text, encoding_for

RANKS_URL = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-3.5-turbo", CL100K),
        ("gpt-35-turbo", CL100K),
        ("gpt-4", CL100K),
        ("gpt-4-0613", CL100K),
        ("gpt-4-turbo-2024-04-09", CL100K),
        ("openai/gpt-4", CL100K),
        ("ft:gpt-4-0613:org::id", CL100K),
        ("ft:gpt-3.5-turbo:org::id", CL100K),
        ("text-embedding-3-small", CL100K),
        ("text-embedding-ada-002", CL100K),
        ("gpt-4o", O200K),
        ("gpt-4o-mini", O200K),
        ("gpt-4.1-nano", O200K),
        ("gpt-4.5-preview", O200K),
        ("GPT-5", O200K),
        ("o3-mini", O200K),
        ("azure/gpt-4o", O200K),
        ("a-model-of-tomorrow", O200K),
    ],
)
def test_a_models_encoding_is_known_by_its_name(model: str, encoding: str) -> None:
    assert encoding_for(model) == encoding


@pytest.mark.parametrize(
    ("encoding", "text", "count"),
    [
        (CL100K, "hello world", 2),
        (O200K, "hello world", 2),
        (CL100K, "안녕하세요", 5),
        (O200K, "안녕하세요", 2),
    ],
)
def test_known_texts_have_their_known_counts(encoding: str, text: str, count: int) -> None:
    assert count_text(text, encoding) == count


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_special_tokens_are_counted_as_the_text_that_a_user_typed(encoding: str) -> None:
    assert count_text("<|endoftext|>", encoding) > 1


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=st.text())
@settings(max_examples=150, deadline=None)
def test_no_text_has_more_tokens_than_bytes(encoding: str, text: str) -> None:
    assert (text == "") == (count_text(text, encoding) == 0)
    assert count_text(text, encoding) <= len(text.encode())


@pytest.mark.parametrize(
    "text", [" " * 1_000_001, "a" * 300_000, "\n\t" * 200_000], ids=["spaces", "a", "mixed"]
)
def test_endless_runs_are_counted_and_do_not_panic(text: str) -> None:
    assert 0 < count_text(text, O200K) < len(text)


def test_cutting_a_long_text_costs_next_to_nothing_and_is_never_under() -> None:
    text = "The quick brown fox jumps over the lazy dog, 17 times. " * 3_000
    counted = count_text(text, O200K)
    encoder = tokens._loaded[O200K]
    assert encoder is not None
    whole = len(encoder.encode_ordinary(text))
    assert whole <= counted <= whole * 1.0001 + 1


def test_half_a_surrogate_pair_is_counted() -> None:
    assert count_text("\ud83d half", O200K) > 0


def test_a_panic_of_the_tokenizer_falls_back_to_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    class Panicking:
        def encode_ordinary(self, text: str) -> list[int]:
            raise PanicException

    monkeypatch.setitem(tokens._loaded, tokens.O200K, Panicking())
    assert tokens.count_text("äb", tokens.O200K) == 3


def test_an_interrupt_is_not_taken_for_a_panic(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def encode_ordinary(self, text: str) -> list[int]:
            raise KeyboardInterrupt

    monkeypatch.setitem(tokens._loaded, tokens.O200K, Interrupted())
    with pytest.raises(KeyboardInterrupt):
        tokens.count_text("text", tokens.O200K)


def test_an_encoding_that_nobody_offers_is_named() -> None:
    with pytest.raises(ConfigurationError, match="p50k_base"):
        count_text("text", "p50k_base")


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_loaded", {})


def _refuse_connections(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Refuse this thread's connections; what other tests have left running in others goes on."""
    tried: list[object] = []
    here = threading.get_ident()

    def refusing(connect: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != here:
                return connect(*args, **kwargs)
            tried.append(args)
            raise OSError("no network in this test")

        return refuse

    monkeypatch.setattr(socket.socket, "connect", refusing(socket.socket.connect))
    monkeypatch.setattr(socket, "getaddrinfo", refusing(socket.getaddrinfo))
    return tried


@pytest.mark.usefixtures("unloaded")
def test_counting_never_opens_a_connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tried = _refuse_connections(monkeypatch)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    assert [count_text("hello world", encoding) for encoding in ENCODINGS] == [2, 2]
    assert tried == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("unloaded")
def test_without_any_ranks_the_byte_length_is_the_bound(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried = _refuse_connections(monkeypatch)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tokens, "find_spec", lambda name: None)
    assert count_text("hällo", O200K) == 6
    assert tried == []


@pytest.mark.usefixtures("unloaded")
def test_tiktokens_own_cache_serves_when_the_data_package_is_absent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = RANKS_URL.format(CL100K)
    data = tokens._from_package(url)
    assert data is not None
    (tmp_path / hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()).write_bytes(data)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tokens, "find_spec", lambda name: None)
    assert count_text("hello world", CL100K) == 2


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("damage", ["changed", "truncated"])
def test_ranks_with_a_wrong_checksum_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str
) -> None:
    good = tokens._from_package(RANKS_URL.format(CL100K))
    assert good is not None
    folder = tmp_path / "data"
    folder.mkdir()
    packed = gzip.compress(good.replace(b"IQ== 0", b"IQ== 9", 1), compresslevel=1)
    (folder / f"{CL100K}.tiktoken.gz").write_bytes(packed if damage == "changed" else packed[:-20])

    class Found:
        submodule_search_locations = [str(tmp_path)]

    monkeypatch.setattr(tokens, "find_spec", lambda name: Found())
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    assert count_text("hello world", CL100K) == len("hello world")


@pytest.mark.usefixtures("unloaded")
def test_threads_that_start_together_load_once_and_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    build = tokens._build
    monkeypatch.setattr(tokens, "_build", lambda encoding: built.append(encoding) or build(encoding))
    start = threading.Barrier(8)

    def count(_: int) -> int:
        start.wait()
        return count_text("one two three", CL100K)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(count, range(8))) == {3}
    assert built == [CL100K]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_while_a_thread_loads_can_count() -> None:
    # In a process of its own: a fork beside the test runner's threads would be its own hazard.
    script = (
        "import os, threading\n"
        "from budgetguard.tokens import text as tokens\n"
        "held = threading.Event()\n"
        "def hold():\n"
        "    with tokens._loading:\n"
        "        held.set(); threading.Event().wait()\n"
        "threading.Thread(target=hold, daemon=True).start()\n"
        "held.wait()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if tokens.count_text('hello world', 'cl100k_base') == 2 else 1)\n"
        "os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], timeout=60, check=False)
    assert done.returncode == 0


@pytest.mark.full
def test_a_spawned_process_counts_the_same() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(count_text, ("hello world", O200K)) == 2


def test_importing_budgetguard_does_not_import_what_it_counts_with() -> None:
    script = (
        "import sys, budgetguard.tokens.text, budgetguard.pricing.book, budgetguard.engine.projection\n"
        "heavy = {'tiktoken', 'genai_prices', 'openai', 'diskcache', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
