"""`budgetguard serve` as its operators run it: processes, workers, signals, TLS."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Settlement
from budgetguard.stores import open_store
from tests.cli.helpers import COMMAND, clean_environment, run

from .requests_of import hold, to_json


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@contextmanager
def serving(store: str, *arguments: str, port: int, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command until the block ends, from when it answers."""
    process = subprocess.Popen(
        [*COMMAND, "serve", "--store", store, "--port", str(port), *arguments],
        env={**clean_environment(), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "the service did not answer"
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
            except OSError:
                time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def stopped(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    return out


def answered(client: httpx2.Client, path: str, body: object) -> dict[str, object]:
    """Send until it is answered, as clients do: a hold id counts once, however often it is sent."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            response = client.post(path, json=body)
        except httpx2.TransportError:
            time.sleep(0.02)
            continue
        if response.status_code == 503:
            continue
        assert response.status_code == 200, response.text
        found: dict[str, object] = response.json()
        return found
    raise AssertionError("no answer within a minute")


@pytest.mark.full
def test_workers_share_budgets_keys_and_figures(tmp_path: Path) -> None:
    store, port = f"disk://{tmp_path}/budgets", free_port()
    key = run("keys", "create", "p", "--role", "admin", "--store", store).out.strip()
    headers = {"Authorization": f"Bearer {key}"}
    with serving(store, "--workers", "2", port=port) as process:
        budgets = open_store(store, project="p")
        budgets.set_budget("user:1", Budget(100))
        answers = []
        for _ in range(30):
            # A connection each, so that both workers are asked.
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
                answers.append(client.post("/v1/projects/p/reserve", json=to_json(hold(10))).json()["answer"])
        assert sorted(answers) == ["granted"] * 10 + ["refused"] * 20
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
            text = client.get("/metrics").text
        found = dict(re.findall(r'budgetguard_reservations_total\{answer="(\w+)"\} (\d+)', text))
        assert found == {"granted": "10", "refused": "20"}
        assert run("keys", "revoke", key.split("_")[1], "--store", store).code == 0
        deadline = time.monotonic() + 10
        while httpx2.get(f"http://127.0.0.1:{port}/metrics", headers=headers).status_code != 401:
            assert time.monotonic() < deadline, "the key still works"
        budgets.close()
        out = stopped(process)
    assert "2 workers" in out
    assert key not in out
    assert "Traceback" not in out


@pytest.mark.full
def test_a_service_that_is_killed_and_started_again_under_load_loses_nothing_and_books_nothing_twice(
    tmp_path: Path,
) -> None:
    store, port, callers, calls = f"disk://{tmp_path}/budgets", free_port(), 4, 40
    budgets = open_store(store, project="p")
    budgets.set_budget("user:1", Budget(10**9))
    wrong: list[BaseException] = []

    def call() -> None:
        try:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
                for _ in range(calls):
                    made = to_json(hold(10))
                    assert answered(client, "/v1/projects/p/reserve", made)["answer"] == "granted"
                    ended = {"hold": made, "settlement": to_json(Settlement(7))}
                    assert answered(client, "/v1/projects/p/settle", ended)["answer"] == "settled"
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for number in range(3):
        with serving(store, port=port) as process:
            if not number:
                for thread in threads:
                    thread.start()
            if number < 2:
                before = len(list(budgets.calls()))
                while len(list(budgets.calls())) < before + 20:
                    time.sleep(0.01)
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            else:
                for thread in threads:
                    thread.join(timeout=120)
    assert wrong == []
    found = budgets.read("user:1")
    assert found is not None
    assert (found.spent_nanos, found.held_nanos) == (callers * calls * 7, 0)
    assert len(list(budgets.calls())) == callers * calls
    budgets.close()


@pytest.mark.full
def test_without_a_key_it_says_who_is_let_in_and_others_are_not(tmp_path: Path) -> None:
    store, port = f"disk://{tmp_path}/budgets", free_port()
    with serving(store, port=port) as process:
        assert httpx2.post(f"http://127.0.0.1:{port}/get_budget", json={"project_name": "p"}).json() == {
            "status": "success",
            "data": {},
        }
        assert "There is no key, so only this machine may send requests." in stopped(process)
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        done = run("serve", "--store", store, "--host", host)
        assert done.code == 2
        assert "there is no key" in done.err


@pytest.mark.full
def test_a_key_from_the_environment_is_enough_and_is_not_shown(tmp_path: Path) -> None:
    secret, port = "a-secret-of-the-operator-of-it", free_port()
    url = f"http://127.0.0.1:{port}/v1/projects/p/balances"
    with serving("memory://", port=port, BUDGETGUARD_API_KEY=secret) as process:
        assert httpx2.get(url).status_code == 401
        assert httpx2.get(url, headers={"Authorization": f"Bearer {secret}"}).status_code == 200
        out = stopped(process)
    assert secret not in out
    assert "There is no key" not in out


@pytest.mark.parametrize(
    ("arguments", "environ", "text"),
    [
        (["--store", "https://budgets.example.org"], {}, "not another service"),
        pytest.param(
            ["--store", "memory://", "--workers", "2"], {}, "belongs to one process", marks=pytest.mark.full
        ),
        pytest.param(["--ssl-certfile", "cert.pem"], {}, "both", marks=pytest.mark.full),
        (["--ssl-certfile", "no.pem", "--ssl-keyfile", "no.key"], {}, "no file no.pem"),
        (["--rate", "often"], {}, "1000/second"),
        pytest.param(["--project", "budgetguard:keys"], {}, "the service's own", marks=pytest.mark.full),
        pytest.param(["--project", "budgetguard:events"], {}, "the service's own", marks=pytest.mark.full),
        pytest.param(["--project", "budgetguard:leader"], {}, "the service's own", marks=pytest.mark.full),
        (["--webhook", "https://alerts.example.com"], {}, "needs a secret"),
        pytest.param(
            ["--webhook", "ftp://a.example"],
            {"BUDGETGUARD_WEBHOOK_SECRET": "x" * 32},
            "https://",
            marks=pytest.mark.full,
        ),
        pytest.param(
            ["--webhook", "https://a.example"],
            {"BUDGETGUARD_WEBHOOK_SECRET": "short"},
            "at least 16",
            marks=pytest.mark.full,
        ),
        pytest.param(
            ["--webhook", "https://a.example", "--webhook-secret-file", "no.txt"],
            {},
            "no.txt cannot be read",
            marks=pytest.mark.full,
        ),
        pytest.param(["--refresh", "never"], {}, "seconds from 1", marks=pytest.mark.full),
        pytest.param(["--refresh", "0"], {}, "seconds from 1", marks=pytest.mark.full),
        ([], {"BUDGETGUARD_API_KEY": "short"}, "BUDGETGUARD_API_KEY must be"),
        pytest.param(["--port", "99999"], {}, "port", marks=pytest.mark.full),
    ],
)
def test_bad_options_are_refused_in_a_line(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], text: str
) -> None:
    done = run("serve", *arguments, **{"BUDGETGUARD_STORE": f"disk://{tmp_path}/b", **environ})
    assert (done.code, done.out) == (2, "")
    assert text in done.err


@pytest.mark.full
def test_keys_are_shown_once_and_listed_without_the_secret(tmp_path: Path) -> None:
    store = f"disk://{tmp_path}/budgets"
    made = run("keys", "create", "my app/🎈", "--role", "read", "--store", store, "--json").object
    assert made["key"].startswith(f"bg_{made['id']}_")
    assert (made["project"], made["role"]) == ("my app/🎈", "read")
    listed = run("--store", store, "keys", "list", "--json").object["keys"]
    assert listed == [{name: value for name, value in made.items() if name != "key"}]
    assert made["id"] in run("keys", "list", "--store", store).out
    assert run("keys", "revoke", "nobody", "--store", store).code == 2
    assert run("keys", "revoke", made["id"], "--store", store, "--json").object["revoked"]["id"] == made["id"]
    assert run("keys", "list", "--store", store).out == "There are no keys.\n"
    assert run("keys", "create", "p", "--role", "root", "--store", store).code == 2


@pytest.mark.full
def test_tls_by_flags(tmp_path: Path) -> None:
    certificate, secret, port = tmp_path / "cert.pem", tmp_path / "key.pem", free_port()
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {secret} "
        f"-out {certificate} -addext subjectAltName=IP:127.0.0.1",
        shell=True,
        check=True,
        capture_output=True,
    )
    import ssl

    context = ssl.create_default_context(cafile=str(certificate))
    files = ("--ssl-certfile", str(certificate), "--ssl-keyfile", str(secret))
    with serving(f"disk://{tmp_path}/b", *files, port=port) as process:
        assert httpx2.get(f"https://127.0.0.1:{port}/healthz", verify=context).status_code == 200
        assert "https://127.0.0.1" in stopped(process)


def test_without_the_extra_the_command_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from budgetguard.cli import main\n"
        f"sys.argv = ['budgetguard', 'serve', '--store', 'disk://{tmp_path}/b']\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "budgetguard-ai[server]" in done.stderr
