"""Serve many users at once, each with a budget; one who has used it up does not stop the others."""

import asyncio

from _offline import offline
from openai import AsyncOpenAI

import budgetguard
from budgetguard import BudgetExceededError, budget_user

offline()

guard = budgetguard.default_guard()
budgetguard.configure(project="chat", default_budget=0.001, default_duration="daily")
guard.set_budget(0.0001, user="frugal")
budgetguard.patch_openai()


async def handle(client: AsyncOpenAI, user: str, question: str) -> str:
    async with budget_user(user):
        try:
            answer = await client.chat.completions.create(
                model="gpt-4o-mini",
                messages=[{"role": "user", "content": question}],
                max_completion_tokens=250,
            )
        except BudgetExceededError as refused:
            return f"sorry: {refused.available} USD left, and this may cost {refused.projected_cost}"
        return answer.choices[0].message.content or ""


async def main() -> None:
    users = [f"user-{number}" for number in range(8)] + ["frugal"]
    async with AsyncOpenAI() as client:
        answers = await asyncio.gather(*(handle(client, user, "How are you?") for user in users))
    for user, answer in zip(users, answers, strict=True):
        print(f"{user:8} {guard.balance(user).spent:.9f} USD  {answer}")


asyncio.run(main())
