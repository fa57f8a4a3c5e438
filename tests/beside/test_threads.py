"""Who pays beside what wraps threads, runs jobs in pools of its own, or has threads of its own."""

from __future__ import annotations

import pytest

from .conftest import Program

THREADS = """
import json, threading
from concurrent.futures import ThreadPoolExecutor
from budgetguard import budget_user, current_user
{first}
with budget_user("alice"):
    pass
{late}
errors, seen = [], []
threading.excepthook = errors.append
with budget_user("alice"):
    thread = threading.Thread(target=lambda: seen.append(current_user()))
    thread.start(); thread.join(30)
    pool = ThreadPoolExecutor(1)
    seen.append(pool.submit(current_user).result(30))
with budget_user("bob"):
    seen.append(pool.submit(current_user).result(30))
seen.append(pool.submit(current_user).result(30))
print(json.dumps([seen, len(errors)]))
"""

WRAPPERS = {
    "sentry_sdk": "import sentry_sdk; sentry_sdk.init()",
    "opentelemetry.instrumentation.threading": (
        "from opentelemetry.instrumentation.threading import ThreadingInstrumentor; "
        "ThreadingInstrumentor().instrument()"
    ),
}


@pytest.mark.parametrize("when", ["first", "late"])
@pytest.mark.parametrize("package", WRAPPERS)
def test_threads_and_pools_work_and_pay_in_either_order(program: Program, package: str, when: str) -> None:
    pytest.importorskip(package)
    text = THREADS.format(**{"first": "", "late": "", when: WRAPPERS[package]})
    assert program(text) == [["alice", "alice", "bob", None], 0]


@pytest.mark.parametrize("when", ["first", "late"])
def test_async_calls_under_a_run_are_answered_beside_sentry(
    program: Program, when: str, tmp_path: object
) -> None:
    pytest.importorskip("sentry_sdk")
    init = "import sentry_sdk; sentry_sdk.init()"
    text = f"""
import asyncio, json
{init if when == "first" else ""}
import openai
{init if when == "late" else ""}
async def main():
    async with openai.AsyncOpenAI() as client:
        messages = [{{"role": "user", "content": "hi"}}]
        asked = client.chat.completions.create(model="gpt-4o-mini", messages=messages)
        return (await asyncio.wait_for(asked, 60)).usage.total_tokens
print(json.dumps(asyncio.run(main())))
"""
    store = f"disk://{tmp_path}/budgets"
    command = ("budgetguard", "run", "--max-budget", "1", "--store", store, "--", "python")
    assert program(text, *command, HOME=str(tmp_path)) == 108


def test_jobs_of_joblib_s_threads_belong_to_who_called(program: Program) -> None:
    pytest.importorskip("joblib")
    text = """
import json, joblib, threading
from budgetguard import budget_user, current_user
with joblib.parallel_config(backend="threading", n_jobs=2), joblib.Parallel() as pool:
    seen = []
    for user in ("alice", "bob"):
        with budget_user(user):
            seen.append(sorted(set(pool(joblib.delayed(current_user)() for _ in range(40)))))
    seen.append(sorted(set(map(str, pool(joblib.delayed(current_user)() for _ in range(40))))))
print(json.dumps(seen))
"""
    assert program(text) == [["alice"], ["bob"], ["None"]]


def test_joblib_s_processes_call_a_decorated_function_guarded_or_not_at_all(program: Program) -> None:
    pytest.importorskip("joblib")
    text = """
import json, pickle, sys, joblib, budgetguard
sys.path.insert(0, ".")
open("mine.py", "w").write('''
import budgetguard
guard = budgetguard.Guard(store="memory://")
guard.set_budget(1, user="u")
@guard.budgeted(model="gpt-4o-mini", user="u")
def ask(prompt):
    return str(guard.balance("u").held > 0)
''')
import mine
@budgetguard.budgeted(model="gpt-4o-mini", user="u")
def local(prompt):
    return "unguarded"
seen = joblib.Parallel(n_jobs=2)(joblib.delayed(mine.ask)(word) for word in ("a", "b"))
try:
    seen += joblib.Parallel(n_jobs=2)(joblib.delayed(local)(word) for word in ("a", "b"))
except pickle.PicklingError as error:
    seen.append("refused")
print(json.dumps(seen))
"""
    assert program(text, PYTHONPATH=".") == ["True", "True", "refused"]


@pytest.mark.parametrize("patched", ["early", "late", "never"])
def test_greenlets_have_the_user_that_they_set_themselves(program: Program, patched: str) -> None:
    pytest.importorskip("gevent")
    patch = "from gevent import monkey; monkey.patch_all()"
    text = f"""
{patch if patched == "early" else ""}
import json, sys
import gevent, gevent.queue
from budgetguard import budget_user, current_user
{patch if patched == "late" else ""}
jobs, seen = gevent.queue.Queue(), gevent.queue.Queue()
def work():
    for job in iter(jobs.get, None):
        seen.put(job())
found = []
def request(user, start):
    with budget_user(user):
        if start:
            gevent.spawn(work)
        jobs.put(current_user)
        found.append(seen.get(timeout=30))
        jobs.put(budget_user(user)(current_user))
        found.append(seen.get(timeout=30))
gevent.spawn(request, "alice", True).join()
gevent.spawn(request, "bob", False).join()
print(json.dumps(found))
"""
    assert program(text) == [None, "alice", None, "bob"]
