"""Let the examples run without a key: a server on this machine answers in OpenAI's place.

With OPENAI_API_KEY set they call OpenAI instead, and cost money. Balances are kept in memory, unless
BUDGETGUARD_STORE says where else.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from budgetguard.testing.openai_server import OpenAIServer


def offline(answer: str | Callable[[dict[str, Any]], str] | None = None) -> None:
    """Point the `openai` package at a loopback server, unless there is a key to call OpenAI with.

    Args:
        answer: what the server answers: a text, or a function of the request's body.
    """
    _call(OpenAIServer, answer)


def offline_responses(text: str, **how: Any) -> None:
    """Do the same for the Responses API, which only the server of this project's own tests answers.

    Args:
        text: what the server answers.
        how: more of that server's `Reply`, such as its calls of hosted tools.
    """
    sys.path.append(str(Path(__file__).parents[1]))
    from tests.provider.server import OpenAIServer, Reply

    _call(OpenAIServer, Reply(text, **how))


def _call(server_class: Callable[[Any], OpenAIServer], answer: Any) -> None:
    os.environ.setdefault("BUDGETGUARD_STORE", "memory://")
    if os.environ.get("OPENAI_API_KEY"):
        return
    server = server_class(answer).start()
    atexit.register(server.stop)
    os.environ["OPENAI_API_KEY"] = "no-key-needed"
    os.environ["OPENAI_BASE_URL"] = server.base_url
