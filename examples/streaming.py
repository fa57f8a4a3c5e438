"""Stream one answer to its end, and leave another early: each is charged for what was produced."""

from _offline import offline
from openai import OpenAI

import budgetguard
from budgetguard import budget_user
from budgetguard.events import Settled

offline("A stream is held before it begins, and settled when it ends, is closed, or is forgotten.")

guard = budgetguard.default_guard()
guard.set_budget(1, user="1234")
guard.on(lambda event: print(f"\n[{event.outcome}: {event.held} USD held, {event.cost} booked]"), Settled)

client = budgetguard.wrap(OpenAI())
question = [{"role": "user", "content": "What happens to a stream?"}]

with budget_user("1234"):
    for chunk in client.chat.completions.create(model="gpt-4o-mini", messages=question, stream=True):
        print(chunk.choices[0].delta.content or "", end="", flush=True)

    with client.chat.completions.create(model="gpt-4o-mini", messages=question, stream=True) as stream:
        for number, chunk in enumerate(stream):
            print(chunk.choices[0].delta.content or "", end="", flush=True)
            if number == 5:
                break

balance = guard.balance("1234")
print(f"{balance.spent} USD spent, {balance.open_holds} calls still held")
