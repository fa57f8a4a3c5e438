"""A program for LiteLLM's BudgetManager: its import changed, and then with calls that cannot overspend."""

from _offline import offline
from openai import OpenAI
from openai.types.chat import ChatCompletion

import budgetguard
from budgetguard import BudgetExceededError, BudgetManager, budget_user

offline(answer="Fine, thank you.")
client = OpenAI()


def completion(model: str, messages: list) -> ChatCompletion:
    """Call the model; this takes the place of LiteLLM's function of the same name."""
    return client.chat.completions.create(model=model, messages=messages, max_completion_tokens=50)


messages = [{"role": "user", "content": "Hey, how's it going?"}]

# 1. As before: check before the call, report after it. Unlike LiteLLM's, this state is shared by all
#    processes of the machine and loses nothing, but calls between check and report can still overspend.
budget_manager = BudgetManager(project_name="test_project")
user = "1234"

if not budget_manager.is_valid_user(user):
    budget_manager.create_budget(total_budget=0.00002, user=user, duration="monthly")

for number in range(1, 100):
    if budget_manager.get_current_cost(user=user) <= budget_manager.get_total_budget(user):
        response = completion(model="gpt-4o-mini", messages=messages)
        budget_manager.update_cost(completion_obj=response, user=user)
    else:
        print(f"No budget for call {number}.")
        break
spent, total = budget_manager.get_current_cost(user), budget_manager.get_total_budget(user)
print(f"{user} has spent ${spent:.7f} of ${total:.7f}: the last call went over the limit.\n")

# 2. The same loop with the client guarded: each call's money is set aside before it is made.
budgetguard.patch_openai()
budget_manager.create_budget(total_budget=0.00005, user="5678", duration="monthly")

with budget_user("5678"):
    for number in range(1, 100):
        try:
            response = completion(model="gpt-4o-mini", messages=messages)
        except BudgetExceededError as refused:
            print(f"Call {number}: {refused}")
            break
        budget_manager.update_cost(completion_obj=response, user="5678")  # charged already: books nothing
spent, total = budget_manager.get_current_cost("5678"), budget_manager.get_total_budget("5678")
print(f"5678 has spent ${spent:.7f} of ${total:.7f}: never more than the limit.")
