"""Guard functions of your own, whatever they call: sync, async, generators, and other shapes of answer."""

import asyncio
from collections.abc import Iterator

from _offline import offline
from openai import OpenAI

from budgetguard import Usage, budget_user, budgeted, default_guard

offline()

guard = default_guard()
guard.set_budget(1, user="1234")
client = OpenAI()  # not patched: the decorator is all that guards it


@budgeted
def ask(messages, model="gpt-4o-mini"):
    return client.chat.completions.create(model=model, messages=messages)


@budgeted(model="gpt-4o-mini", input="question", max_completion_tokens=100)
async def ask_local(question: str) -> str:
    await asyncio.sleep(0)  # a model of your own, say, that answers with text
    return "Forty-two."


@budgeted(model="gpt-4o-mini")
def tell(prompt: str) -> Iterator[str]:
    yield from ("Once ", "upon ", "a ", "time.")


@budgeted(
    model="gpt-4o",
    input=lambda document: document["text"],
    usage=lambda answer: Usage.of(input_tokens=answer["tokens"][0], output_tokens=answer["tokens"][1]),
)
def extract(document: dict[str, str]) -> dict[str, object]:
    return {"people": ["Ada"], "tokens": (1_200, 15)}


with budget_user("1234"):
    print(ask([{"role": "user", "content": "Say hello."}]).choices[0].message.content)
    print(asyncio.run(ask_local("What is the answer?")))
    print("".join(tell("Tell me a story.")))
    print(extract({"text": "Ada wrote the first program."})["people"])

for call in guard.calls():
    print(call.model, dict(call.usage.units), call.cost, "USD")
