"""Measure the way of a call, in files and Python calls of the package, and the size of the package.

    python benchmarks/walk.py [--files] [--rounds N] [--write]

One chat call, one stream and, where the `anthropic` package is installed and guarded, one message of each go
through a real client whose transport is a mock, on a warmed guard with `memory://`. `sys.setprofile` counts
the "call" events in files of the package, in the calling thread. `--files` lists those files with their
counts; `--write` writes the table into docs/architecture.md. CPU times are of one machine: compare them only
with the floor beside them.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import budgetguard
from budgetguard import Guard

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGE: Final = Path(budgetguard.__file__).parent
PAGE: Final = ROOT / "docs" / "architecture.md"
BEGIN: Final = "<!-- walk -->"
END: Final = "<!-- end -->"

USER: Final = "walker"
MESSAGES: Final = [{"role": "user", "content": "Say hello to everyone who reads this."}]
TEXT: Final = ("Hello", " to", " everyone", " who", " reads", " this", ".")
OPENAI: Final = "gpt-4o-mini"
ANTHROPIC: Final = "claude-sonnet-4-6"

# Calls before the measured ones, which load the tokenizer and the prices, and calls measured, of which the
# shortest counts: work that is done every few seconds would make two runs differ.
WARM_UP: Final = 2
MEASURED: Final = 3


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that one figure of the table may be."""

    figure: str
    most: int


BOUNDS: Final = (
    Bound("chat: files", 18),
    Bound("chat: Python calls", 220),
    Bound("stream: files", 20),
    Bound("entries at the top", 19),
    Bound("import layers", 8),
)


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", action="store_true", help="list the files of each way, with their calls")
    parser.add_argument("--rounds", type=int, default=15, help="processes started for each CPU time")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    walked = walks()
    if options.files:
        for name, calls in walked.items():
            print(f"{name}: {len(calls)} files, {calls.total()} calls")
            for file, count in calls.most_common():
                print(f"  {count:>4}  {file}")
    table = [*rows(structure(walked)), *cpu_rows(options.rounds)]
    print("\n".join(table))
    if options.write:
        PAGE.write_text(written(PAGE.read_text(), table))


def structure(walked: Mapping[str, Counter[str]]) -> dict[str, int]:
    """Return the figures that are the same on every machine, by name."""
    figures = {}
    for name, calls in walked.items():
        figures[f"{name}: files"] = len(calls)
        figures[f"{name}: Python calls"] = calls.total()
    files = sorted(PACKAGE.rglob("*.py"))
    return {
        **figures,
        "entries at the top": sum(entry.name != "__pycache__" for entry in PACKAGE.iterdir()),
        "import layers": layers(),
        "Python files": len(files),
        "lines": sum(len(file.read_text().splitlines()) for file in files),
    }


def layers() -> int:
    """Return how many layers the check of imports knows, of pyproject.toml."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    return len(contract["layers"])


# The ways


def walks() -> dict[str, Counter[str]]:
    """Return the calls in each of our files, for each way that the installed SDKs allow."""
    found = {"chat": walk(chat), "stream": walk(stream)}
    if anthropic_is_guarded():
        found["anthropic"] = walk(anthropic_message)
        found["anthropic stream"] = walk(anthropic_stream)
    return found


def walk(way: Callable[[Guard], Callable[[], object]]) -> Counter[str]:
    """Return the calls in each of our files that one call makes on a warmed guard.

    Raises:
        AssertionError: the call was not charged, so that nothing was measured.
    """
    guard = Guard(store="memory://", project="walk")
    guard.set_budget(1_000, user=USER)
    call = way(guard)
    with guard.budget_user(USER):
        for _ in range(WARM_UP):
            call()
        spent = guard.balance(USER).spent
        counts = [profiled(call) for _ in range(MEASURED)]
    assert guard.balance(USER).spent > spent, f"{way.__name__}: nothing was charged"
    guard.close()
    return min(counts, key=lambda count: (count.total(), len(count)))


def profiled(call: Callable[[], object]) -> Counter[str]:
    """Return the "call" events in files of the package while `call` runs, by file."""
    here = f"{PACKAGE}{os.sep}"
    counts: Counter[str] = Counter()

    def count(frame: Any, event: str, _argument: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(here):
            counts[file.removeprefix(here)] += 1

    # A finalizer that the collector happens to run inside would be counted.
    gc.collect()
    gc.disable()
    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(None)
        gc.enable()
    return counts


def chat(guard: Guard) -> Callable[[], object]:
    """Return a chat completion of a guarded client."""
    client = guard.wrap(openai_client(json_reply(CHAT_ANSWER)))
    return lambda: client.chat.completions.create(model=OPENAI, messages=MESSAGES)


def stream(guard: Guard) -> Callable[[], object]:
    """Return a chat completion that is streamed to its end."""
    client = guard.wrap(openai_client(events_reply([None] * len(CHAT_CHUNKS), CHAT_CHUNKS, done=True)))
    return lambda: list(client.chat.completions.create(model=OPENAI, messages=MESSAGES, stream=True))


def anthropic_message(guard: Guard) -> Callable[[], object]:
    """Return a message of a guarded client."""
    client = guard.wrap(anthropic_client(json_reply(MESSAGE)))
    return lambda: client.messages.create(model=ANTHROPIC, max_tokens=64, messages=MESSAGES)


def anthropic_stream(guard: Guard) -> Callable[[], object]:
    """Return a message that is streamed to its end."""
    names = [event["type"] for event in MESSAGE_EVENTS]
    client = guard.wrap(anthropic_client(events_reply(names, MESSAGE_EVENTS)))
    return lambda: list(
        client.messages.create(model=ANTHROPIC, max_tokens=64, messages=MESSAGES, stream=True)
    )


def anthropic_is_guarded() -> bool:
    """Return whether the `anthropic` package is installed, and guarded by this version."""
    return hasattr(budgetguard, "patch_anthropic") and importlib.util.find_spec("anthropic") is not None


# The answers

CHAT_ANSWER: Final = {
    "id": "chatcmpl-walk",
    "object": "chat.completion",
    "created": 1,
    "model": OPENAI,
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "".join(TEXT)},
        }
    ],
    "usage": {"prompt_tokens": 15, "completion_tokens": 7, "total_tokens": 22},
}


def _chat_chunk(delta: Mapping[str, str], finish: str | None = None) -> dict[str, object]:
    return {
        "id": "chatcmpl-walk",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": OPENAI,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        "usage": None,
    }


CHAT_CHUNKS: Final[Sequence[Mapping[str, Any]]] = (
    _chat_chunk({"role": "assistant", "content": ""}),
    *(_chat_chunk({"content": text}) for text in TEXT),
    _chat_chunk({}, "stop"),
    {**_chat_chunk({}), "choices": [], "usage": CHAT_ANSWER["usage"]},
)

MESSAGE: Final = {
    "id": "msg_walk",
    "type": "message",
    "role": "assistant",
    "model": ANTHROPIC,
    "content": [{"type": "text", "text": "".join(TEXT)}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 15, "output_tokens": 7},
}
MESSAGE_EVENTS: Final[Sequence[Mapping[str, Any]]] = (
    {
        "type": "message_start",
        "message": {
            **MESSAGE,
            "content": [],
            "stop_reason": None,
            "usage": {"input_tokens": 15, "output_tokens": 1},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    *(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        for text in TEXT
    ),
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 7},
    },
    {"type": "message_stop"},
)


# The clients


def openai_client(reply: Mapping[str, Any]) -> Any:
    """Return a real client to which every request is answered the same, without a network."""
    sdk = importlib.import_module("openai")
    return sdk.OpenAI(api_key="none", base_url="https://api.openai.com/v1", http_client=mock(sdk, reply))


def anthropic_client(reply: Mapping[str, Any]) -> Any:
    """Return a real client to which every request is answered the same, without a network."""
    sdk = importlib.import_module("anthropic")
    return sdk.Anthropic(api_key="none", base_url="https://api.anthropic.com", http_client=mock(sdk, reply))


def mock(sdk: Any, reply: Mapping[str, Any]) -> Any:
    """Return an HTTP client of the library that the SDK runs on: httpx, or httpx2 for newer ones."""
    (base,) = (base for base in sdk.DefaultHttpxClient.__mro__ if base.__name__ == "Client")
    http = sys.modules[base.__module__.partition(".")[0]]
    return http.Client(transport=http.MockTransport(lambda _request: http.Response(200, **reply)))


def json_reply(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a response that is one JSON object."""
    return {"json": answer}


def events_reply(
    names: Sequence[str | None], events: Sequence[Mapping[str, Any]], *, done: bool = False
) -> dict[str, Any]:
    """Return the arguments of a response that is a stream of server-sent events."""
    lines = [
        (f"event: {name}\n" if name else "") + f"data: {json.dumps(event)}\n\n"
        for name, event in zip(names, events, strict=True)
    ]
    body = "".join([*lines, "data: [DONE]\n\n" if done else ""])
    return {"content": body.encode(), "headers": {"content-type": "text/event-stream"}}


# CPU

_IMPORTS: Final = "import wrapt, contextvars_extras"
_IMPORT: Final = "import budgetguard"
_HELP: Final = "import sys; sys.argv = ['budgetguard', '--help']; from budgetguard.cli import main; main()"


def cpu_rows(rounds: int) -> Iterator[str]:
    """Yield the rows of CPU times: each program's median of several processes, started in turn."""
    programs = {
        "CPU of a bare Python": "pass",
        "CPU of importing what we stand on (wrapt, contextvars-extras)": _IMPORTS,
        "CPU of `import budgetguard`": _IMPORT,
        "CPU of `budgetguard --help`": _HELP,
    }
    taken: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            taken[name].append(cpu(program))
    for name, times in taken.items():
        yield f"| {name} | {statistics.median(times) * 1000:.0f} ms | |"


def cpu(program: str) -> float:
    """Return the seconds of CPU, user and system, that a Python takes to start and run a program."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


# The page


def rows(figures: Mapping[str, int]) -> Iterator[str]:
    """Yield the table's head and the rows of the figures, each with its bound."""
    bounds = {bound.figure: f"{bound.most}" for bound in BOUNDS}
    yield "| figure | now | at most |"
    yield "|---|---|---|"
    for name, value in figures.items():
        yield f"| {name} | {value:,} | {bounds.get(name, '')} |".replace(",", " ")


def figures_of(text: str) -> dict[str, int]:
    """Return the figures that a page's table has, without the times.

    Raises:
        ValueError: the page has no place for the table.
    """
    inside = re.search(f"{BEGIN}\n(.*?){END}", text, re.DOTALL)
    if inside is None:
        raise ValueError(f"the page has no lines {BEGIN} and {END}, between which the table is written")
    found = re.findall(r"^\| ([^|]+) \| ([\d ]+) \|", inside[1], re.MULTILINE)
    return {name: int(value.replace(" ", "")) for name, value in found}


def written(text: str, table: Sequence[str]) -> str:
    """Return a page's text with this table in its place."""
    figures_of(text)
    return re.sub(f"{BEGIN}\n.*?{END}", lambda _: "\n".join([BEGIN, *table, END]), text, flags=re.DOTALL)


if __name__ == "__main__":
    main()
