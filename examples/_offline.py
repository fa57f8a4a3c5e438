"""Let the examples run without a key: a server on this machine answers in OpenAI's place.

With OPENAI_API_KEY set they call OpenAI instead, and cost money. Balances are kept in memory, unless
BUDGETGUARD_STORE says where else.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from typing import Any

from budgetguard.testing.openai_server import OpenAIServer, Reply


def offline(answer: str | Callable[[dict[str, Any]], str | Reply] | None = None) -> None:
    """Point the `openai` package at a loopback server, unless there is a key to call OpenAI with.

    Args:
        answer: what the server answers: a text, or a function of the request's body.
    """
    os.environ.setdefault("BUDGETGUARD_STORE", "memory://")
    if os.environ.get("OPENAI_API_KEY"):
        return
    server = OpenAIServer(answer).start()
    atexit.register(server.stop)
    os.environ["OPENAI_API_KEY"] = "no-key-needed"
    os.environ["OPENAI_BASE_URL"] = server.base_url
