"""Give one run of an agent its own limit, which includes tools that call the model in threads."""

from concurrent.futures import ThreadPoolExecutor

from _offline import offline
from openai import OpenAI

import budgetguard
from budgetguard import BudgetExceededError, budget_user

offline(lambda body: f"My thoughts on: {body['messages'][-1]['content']}")

guard = budgetguard.default_guard()
guard.set_budget(5, user="1234", duration="daily")
budgetguard.patch_openai()
client = OpenAI()


def think(prompt: str) -> str:
    answer = client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": prompt}], max_completion_tokens=400
    )
    return answer.choices[0].message.content or ""


def research(topic: str) -> str:
    """A tool that calls the model itself."""
    return think(f"Facts about {topic}")


def agent(goal: str) -> str:
    plan = think(f"A plan to {goal}")
    with ThreadPoolExecutor() as pool:  # its threads belong to the run, and to the user
        notes = list(pool.map(research, ["trains", "weather", "museums"]))
    return think("\n".join(["Sum up.", plan, *notes]))


with budget_user("1234"), budgetguard.budget(0.05) as run:
    print(agent("spend a rainy day in Vienna").splitlines()[0])
    print(f"five calls, {run.spent} USD of {run.limit} spent, {run.available} left")

with budget_user("1234"), budgetguard.budget(0.0045) as run:
    try:
        agent("spend a rainy day in Vienna")
    except BudgetExceededError as refused:
        print("the small run stopped:", refused)
    print(f"{run.spent} USD of {run.limit} spent")

print(f"the user has spent {guard.balance('1234').spent} USD on both")
