"""Budgets of a team, each customer and requests a minute; a cheaper model where the money does not reach."""

from _offline import offline
from openai import OpenAI

from budgetguard import BudgetExceededError, Guard, budget_labels, budget_user
from budgetguard.events import FellBack

offline()
guard = Guard(store="memory://", project="teams")
client = guard.wrap(OpenAI())

guard.set_budget(10, user="ann", duration="monthly")
guard.set_member("ann", team="red")
guard.set_budget(0.0008, team="red", duration="monthly", fallbacks={"gpt-4o": ["gpt-4o-mini"]})
guard.set_budget(0.50, customer="*", duration="daily")
guard.set_budget(3, user="ann", unit="requests", duration="1m")
guard.on(lambda event: print(f"  {event.model} is called instead of {event.instead_of}"), FellBack)

for customer in ("acme", "globex", "initech", "umbrella"):
    with budget_user("ann"), budget_labels(customer=customer):
        try:
            answer = client.chat.completions.create(
                model="gpt-4o",
                messages=[{"role": "user", "content": "Say hello."}],
                max_completion_tokens=60,
            )
            print(customer, "got an answer of", answer.model)
        except BudgetExceededError as refused:
            print(customer, "got none:", refused)

guard.grant(0.01, team="red", expires="2d", reason="launch week")
for balance in guard.budgets():
    print(f"{balance.account:<40} {balance.spent} of {balance.limit}")
for change in guard.audit():
    print(change.by, change.action, change.account, change.reason)
guard.close()
