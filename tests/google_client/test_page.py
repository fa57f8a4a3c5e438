"""docs/google.md: its code runs, and its table is that of the ways; both want the SDK."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs import pages, tables
from tests.docs.running import checked, environment, run
from tests.sdks.server import Answer, Arrived, CountingServer

from .server import Gemini, whole
from .ways import HAS_ALL

PAGE = pages.ROOT / "docs" / "google.md"

pytestmark = pytest.mark.skipif(not HAS_ALL, reason="the page is of newer versions")


class Ending:
    """A server whose batch has ended when it is asked for the second time."""

    def __init__(self) -> None:
        self._asked = itertools.count(1)
        self._server = Gemini()

    def __call__(self, arrived: Arrived) -> Answer:
        if "/batches/" in arrived.path and next(self._asked) > 1:
            answers: Any = [{"response": whole()}] * 2
            output = {"inlinedResponses": {"inlinedResponses": answers}}
            self._server.batch = {"state": "BATCH_STATE_SUCCEEDED", "output": output}
        return self._server(arrived)


def test_the_table_of_ways_is_what_is_tested() -> None:
    told = "\n".join(["<!-- table: google ways -->", *tables.google_ways(), "<!-- end -->"])
    assert told in PAGE.read_text(), "run python -m tests.docs.tables"


def test_the_code_of_the_page_runs_and_prints_what_the_page_says(tmp_path: Path) -> None:
    program = checked(pages.script(PAGE.read_text()), tmp_path)
    with CountingServer(Ending()) as server:
        variables = environment(
            tmp_path,
            GOOGLE_GEMINI_BASE_URL=server.url,
            GOOGLE_VERTEX_BASE_URL=server.url,
            GOOGLE_API_KEY="not-a-key",
        )
        # What the SDK warns of is its own to mend.
        done = run([sys.executable, str(program)], tmp_path, variables)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        assert "Exception ignored" not in done.stderr, done.stderr
