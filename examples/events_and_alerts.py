"""Use events: an alert when a budget runs low, a total by model, a log of every refusal."""

import logging
import sys
from collections import Counter

from _offline import offline
from openai import OpenAI

import budgetguard
from budgetguard import BudgetExceededError, Event, budget_user, log_events
from budgetguard.events import Refused, Settled, ThresholdCrossed

offline()
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(name)s: %(message)s")

budgetguard.configure(thresholds=[50, 90])
guard = budgetguard.default_guard()
guard.set_budget(0.00003, user="1234", duration="monthly")
client = budgetguard.wrap(OpenAI())

by_model: Counter[str] = Counter()


def alert(event: Event) -> None:
    assert isinstance(event, ThresholdCrossed)
    print(f"ALERT {event.account}: {event.threshold} % of {event.limit} USD, until {event.resets_at}")


def count(event: Event) -> None:
    assert isinstance(event, Settled)
    by_model[event.model] += event.usage.input_tokens + event.usage.output_tokens if event.usage else 0


budgetguard.on(alert, ThresholdCrossed)
budgetguard.on(count, Settled)
budgetguard.on(log_events, Refused)

with budget_user("1234"):
    try:
        while True:
            client.chat.completions.create(
                model="gpt-4o-mini",
                messages=[{"role": "user", "content": "Say hello."}],
                max_completion_tokens=10,
            )
    except BudgetExceededError:
        print("that was it for this month")

print("tokens by model:", dict(by_model))
