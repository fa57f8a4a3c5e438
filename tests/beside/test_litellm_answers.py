"""LiteLLM's answers, streams and manager beside ours, and the answers of other packages."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from budgetguard import BudgetManager, Guard, budget_user

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
litellm = pytest.importorskip("litellm")

# What other packages warn of is theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

MESSAGES = [{"role": "user", "content": "hi"}]
# LiteLLM's list and ours are of one mind about these; of others they differ in the price, not in the model.
SAME = (
    "gpt-4o-mini",
    "gpt-5",
    "o3-mini",
    "azure/gpt-4o",
    "gemini/gemini-2.5-flash",
    "vertex_ai/gemini-2.5-pro",
    "groq/openai/gpt-oss-120b",
    "anthropic/claude-sonnet-4-5",
    "bedrock/us.anthropic.claude-sonnet-4-20250514-v1:0",
    "bedrock/amazon.nova-lite-v1:0",
    "cohere/command-r-plus-08-2024",
    "cohere_chat/command-a-03-2025",
    "deepinfra/meta-llama/Llama-3.3-70B-Instruct",
    "watsonx/ibm/granite-3-8b-instruct",
    "ollama/llama3",
)
BOOKED = (
    "mistral/mistral-large-latest",
    "deepseek/deepseek-chat",
    "perplexity/sonar",
    "groq/llama-3.3-70b-versatile",
    "xai/grok-3-mini",
    "together_ai/meta-llama/Llama-3.3-70B-Instruct-Turbo",
    "fireworks_ai/accounts/fireworks/models/llama-v3p1-8b-instruct",
    "openrouter/openai/gpt-4o-mini",
    "moonshot/kimi-k2-0711-preview",
    "codestral/codestral-latest",
)


@pytest.fixture
def guard() -> Guard:
    guard = Guard(store="memory://", project="p")
    guard.set_budget(10, user="u")
    return guard


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return LiteLLM's manager. It writes its users to where it runs, later, in threads of its own."""
    monkeypatch.chdir(tmp_path)
    yield litellm.BudgetManager("p")
    for thread in threading.enumerate():
        # Named by Python after what it runs. Those of LiteLLM's pools never end.
        if thread.name.endswith("(save_data)"):
            thread.join(30)
            assert not thread.is_alive()


def answered(model: str, **more: Any) -> Any:
    return litellm.completion(model=model, messages=MESSAGES, mock_response="hello", **more)


@pytest.mark.parametrize("model", SAME)
def test_update_cost_books_what_litellms_manager_books(guard: Guard, theirs: Any, model: str) -> None:
    ours = BudgetManager("p", guard=guard)
    theirs.create_budget(10, "u")
    answer = answered(model)
    theirs.update_cost("u", completion_obj=answer)
    ours.update_cost("u", completion_obj=answer)
    assert ours.get_current_cost("u") == pytest.approx(theirs.get_current_cost("u"), abs=2e-9)


@pytest.mark.parametrize("model", BOOKED)
def test_update_cost_books_where_the_lists_differ(guard: Guard, model: str) -> None:
    ours = BudgetManager("p", guard=guard)
    ours.update_cost("u", completion_obj=answered(model))
    assert ours.get_current_cost("u") > 0


@pytest.mark.parametrize("asked", [False, True])
async def test_a_function_may_return_its_stream(guard: Guard, asked: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if asked else {}

    @guard.budgeted
    def ask(messages: Any, model: str) -> Any:
        return answered(model, stream=True, **options)

    @guard.budgeted
    async def aask(messages: Any, model: str) -> Any:
        return await litellm.acompletion(
            model=model, messages=messages, mock_response="hello", stream=True, **options
        )

    with budget_user("u"):
        stream = ask(MESSAGES, "gpt-4o-mini")
        assert isinstance(stream, litellm.CustomStreamWrapper)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        once = guard.balance("u").spent
        chunks = [chunk async for chunk in await aask(MESSAGES, "gpt-4o-mini")]
    assert text == "hello"
    assert chunks
    assert 0 < once < guard.balance("u").spent
    assert guard.balance("u").held == 0


def test_langchains_messages(guard: Guard) -> None:
    messages = pytest.importorskip("langchain_core.messages")
    pieces = [
        messages.AIMessageChunk(
            text, usage_metadata={"input_tokens": read, "output_tokens": wrote, "total_tokens": read + wrote}
        )
        for text, read, wrote in (("he", 1_000, 0), ("llo", 0, 100))
    ]

    @guard.budgeted(user="u", model="gpt-4o-mini")
    def stream(messages: Any) -> Any:
        return iter(pieces)

    @guard.budgeted(user="u", model="gpt-4o-mini")
    def whole(messages: Any) -> Any:
        return pieces[0] + pieces[1]

    assert list(stream(MESSAGES)) == pieces
    assert guard.balance("u").spent_nanos == 210_000
    assert whole(MESSAGES).content == "hello"
    assert guard.balance("u").spent_nanos == 420_000


async def test_pydantic_ais_results(guard: Guard) -> None:
    ai = pytest.importorskip("pydantic_ai")
    models = pytest.importorskip("pydantic_ai.models.test")

    @guard.budgeted(user="u", model="gpt-4o-mini")
    async def whole(prompt: str) -> Any:
        return await ai.Agent(models.TestModel()).run(prompt)

    @guard.budgeted(user="u", model="gpt-4o-mini")
    def stream(prompt: str) -> Any:
        return ai.Agent(models.TestModel()).run_stream(prompt)

    await whole("hi")
    once = guard.balance("u").spent_nanos
    async with stream("hi") as result:
        assert [text async for text in result.stream_text()]
    assert guard.balance("u").spent_nanos == 2 * once > 0
    assert guard.balance("u").held == 0
