"""Serve chat over HTTP with the standard library: each user has a budget, and a refusal is a 402."""

import threading
from collections.abc import Iterable
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from wsgiref.simple_server import WSGIRequestHandler, make_server

from _offline import offline
from openai import OpenAI

import budgetguard
from budgetguard.integrations.wsgi import BudgetWsgiMiddleware

offline()

guard = budgetguard.default_guard()
guard.set_budget(1, user="ada", duration="monthly")
guard.set_budget(0, user="charles")
client = budgetguard.wrap(OpenAI())


def chat(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    question = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])).decode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    # A stream: its first part, and so a refusal, comes before the head of the response is sent.
    for chunk in client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": question}], stream=True
    ):
        yield (chunk.choices[0].delta.content or "").encode() if chunk.choices else b""


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log nothing."""


app = BudgetWsgiMiddleware(chat, header="x-user", missing=401)
with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for user in ("ada", "charles", "nobody", ""):
        url = f"http://127.0.0.1:{server.server_port}/"
        try:
            with urlopen(Request(url, b"Hello?", {"x-user": user})) as response:
                print(user, response.status, response.read().decode())
        except HTTPError as error:
            print(user, error.code, error.read().decode())
            error.close()
    server.shutdown()
