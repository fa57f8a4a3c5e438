"""Give a user a budget, and let the openai client run into it."""

from _offline import offline
from openai import OpenAI

import budgetguard
from budgetguard import BudgetExceededError, BudgetManager, budget_user

offline()

BudgetManager("my-app").create_budget(total_budget=0.0002, user="1234", duration="monthly")
budgetguard.patch_openai()

client = OpenAI()
with budget_user("1234"):
    for number in range(1, 100):
        try:
            answer = client.chat.completions.create(
                model="gpt-4o-mini",
                messages=[{"role": "user", "content": "Say hello."}],
                max_completion_tokens=300,
            )
        except BudgetExceededError as refused:
            print(f"call {number} was not made: {refused}")
            break
        print(f"call {number}:", answer.choices[0].message.content)

balance = budgetguard.default_guard().balance("1234")
print(f"{balance.spent} of {balance.limit} USD spent; the budget resets at {balance.resets_at}")
