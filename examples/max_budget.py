"""LiteLLM's `max_budget`, which caps what this process spends, and here really stops calls."""

from _offline import offline
from openai import OpenAI
from openai.types.chat import ChatCompletion

import budgetguard
from budgetguard import BudgetExceededError, budgeted

offline(answer="Fine, thank you.")
client = OpenAI()


@budgeted
def completion(model: str, messages: list, max_tokens: int = 50) -> ChatCompletion:
    """Call the model; this takes the place of LiteLLM's function of the same name."""
    return client.chat.completions.create(model=model, messages=messages, max_completion_tokens=max_tokens)


budgetguard.max_budget = 0.01  # USD; 0 is no cap

messages = [{"role": "user", "content": "Hey, how's it going?"}]
try:
    for _ in range(100):
        completion(model="gpt-4", messages=messages)
        print(f"${budgetguard.current_cost():.5f} spent")
except BudgetExceededError as refused:
    print(refused)
    print(f"current_cost={refused.current_cost}, max_budget={refused.max_budget}")
