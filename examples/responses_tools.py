"""Use hosted tools in the background: their fees are held too, and booked when the answer has arrived."""

import os
import time

from _offline import offline_responses
from openai import OpenAI

import budgetguard
from budgetguard import BudgetExceededError, budget_user
from budgetguard.events import Held, Settled

SEARCH = {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "budgets"}}
offline_responses("Two searches found it.", hosted=[SEARCH, SEARCH], polls=2)
pause = 1 if os.environ.get("OPENAI_API_KEY") != "no-key-needed" else 0

guard = budgetguard.default_guard()
guard.set_budget(0.10, user="1234")
guard.on(lambda event: print(f"{event.amount} USD held"), Held)
guard.on(lambda event: print(f"{event.cost} USD booked for {dict(event.usage.units)}"), Settled)

budgetguard.patch_openai()
client = OpenAI()
with budget_user("1234"):
    answer = client.responses.create(
        model="gpt-5-mini",
        input="What is new about budgets?",
        tools=[{"type": "web_search"}],
        background=True,
    )
    while answer.status in ("queued", "in_progress"):
        time.sleep(pause)
        answer = client.responses.retrieve(answer.id)
    print(answer.status, "-", answer.output_text)

    guard.set_budget(0.021, user="1234")
    try:
        client.responses.create(model="gpt-5-mini", input="And now?", tools=[{"type": "web_search"}])
    except BudgetExceededError as refused:
        print(refused)
