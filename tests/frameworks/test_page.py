"""The programs of docs/frameworks.md, one by one: no environment has all of these frameworks."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.docs import pages
from tests.docs.running import environment, run
from tests.provider.server import OpenAIServer

from .case import WORDS

PAGE = pages.ROOT / "docs" / "frameworks.md"
BLOCKS = [block for block in pages.blocks(PAGE.read_text()) if block.info == "python {.no-run}"]


@pytest.mark.parametrize("block", BLOCKS, ids=[f"line {block.start}" for block in BLOCKS])
def test_a_program_of_the_page_runs(block: pages.Block, tmp_path: Path) -> None:
    text = "\n".join(block.lines)
    for package in re.findall(r"^(?:from|import) (?!budgetguard)([\w.]+)", text, re.MULTILINE):
        pytest.importorskip(package)
    if "integrations.litellm" in text:
        pytest.importorskip("litellm.proxy.proxy_server")
    program = tmp_path / "program.py"
    spent = "\nimport budgetguard as bg\nprint('spent', bg.default_guard().balance('alice').spent_nanos)\n"
    program.write_text(text + (spent if "set_budget" in text else ""))
    with OpenAIServer(WORDS) as server:
        variables = environment(
            tmp_path,
            OPENAI_BASE_URL=server.base_url,
            OPENAI_API_BASE=server.base_url,
            OPENAI_API_KEY="not-a-key",
            BUDGETGUARD_STORE="memory://",
            LITELLM_LOCAL_MODEL_COST_MAP="True",
            CREWAI_DISABLE_TELEMETRY="true",
            OTEL_SDK_DISABLED="true",
            OPENAI_AGENTS_DISABLE_TRACING="1",
        )
        # What frameworks warn of is theirs to mend.
        done = run([sys.executable, str(program)], tmp_path, variables)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        if "set_budget" in text:
            assert server.count() >= 1
            assert int(done.stdout.splitlines()[-1].partition(" ")[2]) > 0
