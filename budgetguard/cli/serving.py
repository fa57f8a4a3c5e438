"""`serve`: the hosted budget service."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Final

import typer

from budgetguard.cli import options
from budgetguard.core.wording import count, printable
from budgetguard.errors import ConfigurationError
from budgetguard.server.keys import KEYS_PROJECT, Keyring
from budgetguard.stores.base import open_store, public_url

if TYPE_CHECKING:
    from budgetguard.server.options import Options

DEFAULT_PORT: Final = 8642
_APPLICATION: Final = "budgetguard.server.app:app_from_environment"
# Clients keep connections open between calls, which may be a minute apart.
_KEEP_ALIVE_S: Final = 75
_STOPPING_S: Final = 15


def serve(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Listen here; 0.0.0.0 is all addresses, and needs keys.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65_535, help="0 takes a free one.")
    ] = DEFAULT_PORT,
    workers: Annotated[int, typer.Option(metavar="N", min=1, max=256, help="Processes that answer.")] = 1,
    store: options.Store = None,
    project: options.Project = None,
    rate: Annotated[
        str | None,
        options.option(
            "RATE", "Requests that a key may send to a worker, such as 1000/second (the default), or none."
        ),
    ] = None,
    webhook: Annotated[str | None, options.option("URL", "Send events here.")] = None,
    webhook_secret_file: Annotated[
        Path | None, options.option("FILE", "The secret that signs events.")
    ] = None,
    alerts_file: Annotated[
        Path | None, options.option("FILE", "Addresses that alerts go to, one a line: see docs/alerts.md.")
    ] = None,
    refresh: Annotated[
        str | None, options.option("SECONDS", "Read all accounts this often (60 by default).")
    ] = None,
    max_connections: Annotated[
        int | None,
        options.option(
            "N", "Connections that a worker keeps (half of its file descriptors by default).", min=1
        ),
    ] = None,
    max_accounts: Annotated[
        int | None, options.option("N", "Accounts of one project (100000 by default).", min=1)
    ] = None,
    max_holds: Annotated[
        int | None, options.option("N", "Open holds of one project (100000 by default).", min=1)
    ] = None,
    trust_proxy: Annotated[
        str | None,
        options.option(
            "ADDRESSES",
            "Believe X-Forwarded-For of these proxies, such as 10.0.0.5 or 10.0.0.0/24,127.0.0.1.",
        ),
    ] = None,
    ssl_certfile: Annotated[Path | None, options.option("FILE", "Certificate chain, PEM.")] = None,
    ssl_keyfile: Annotated[Path | None, options.option("FILE", "Its private key, PEM.")] = None,
) -> None:
    """Serve budgets over HTTP.

    It speaks LiteLLM's hosted protocol, and budgetguard's own under /v1. Clients need a key, see
    `budgetguard keys`. The key in BUDGETGUARD_API_KEY may do everything (with --project, in that project
    only). Without any key the service answers this machine only.

    \b
    Examples:
      budgetguard serve
      budgetguard serve --store postgresql://budgets@db.internal/budgets --host 0.0.0.0 --workers 4
    """
    variables = {
        "BUDGETGUARD_STORE": store,
        "BUDGETGUARD_PROJECT": project,
        "BUDGETGUARD_SERVE_RATE": rate,
        "BUDGETGUARD_SERVE_REFRESH": refresh,
        "BUDGETGUARD_SERVE_CONNECTIONS": None if max_connections is None else str(max_connections),
        "BUDGETGUARD_SERVE_ACCOUNTS": None if max_accounts is None else str(max_accounts),
        "BUDGETGUARD_SERVE_HOLDS": None if max_holds is None else str(max_holds),
        "BUDGETGUARD_WEBHOOK": webhook,
        "BUDGETGUARD_WEBHOOK_SECRET": _secret(webhook_secret_file),
        "BUDGETGUARD_ALERTS": _secret(alerts_file),
    }
    os.environ.update({name: value for name, value in variables.items() if value is not None})
    os.environ["BUDGETGUARD_SERVE_HOST"] = host
    try:
        import uvicorn

        import budgetguard.server.app  # noqa: F401  # all that the workers need
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is not installed: pip install 'budgetguard-ai[server]' brings all that serve needs"
        ) from error
    from budgetguard.alerts.addresses import addresses_of
    from budgetguard.server.connections import BACKLOG, GuardedProtocol
    from budgetguard.server.options import Options

    chosen = Options.from_environment()
    addresses_of(chosen.alerts)  # here, so that a bad one is an error of this command and not of a worker
    _check_proxies(trust_proxy)
    _check_tls(ssl_certfile, ssl_keyfile)
    if workers > 1 and chosen.store.startswith("memory:"):
        raise ConfigurationError("a memory:// store belongs to one process: serve it with one worker")
    keyed = _is_keyed(chosen)
    scheme = "https" if ssl_certfile else "http"
    place = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    _say(f"Serving {printable(public_url(chosen.store))} on {place} with {count(workers, 'worker')}.")
    if not keyed:
        _say(
            "There is no key, so only this machine may send requests. Make one with "
            "`budgetguard keys create PROJECT`."
        )
    with ExitStack() as stack:
        if workers > 1:
            # Read when prometheus_client is imported, which the workers do.
            folder = stack.enter_context(TemporaryDirectory(prefix="budgetguard-metrics-"))
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        uvicorn.run(
            _APPLICATION,
            factory=True,
            host=host,
            port=port,
            workers=workers,
            ssl_certfile=ssl_certfile,
            ssl_keyfile=ssl_keyfile,
            access_log=False,
            http=GuardedProtocol,
            backlog=BACKLOG,
            proxy_headers=trust_proxy is not None,
            forwarded_allow_ips=trust_proxy,
            log_level="warning",
            server_header=False,
            lifespan="on",
            ws="none",
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_STOPPING_S,
        )


def _is_keyed(chosen: Options) -> bool:
    store = open_store(chosen.store, project=KEYS_PROJECT, retention=chosen.retention)
    try:
        keyring = Keyring(store, chosen.given)
        keyring.refresh()
    finally:
        store.close()
    if not keyring.keyed and not chosen.is_private:
        raise ConfigurationError(
            f"there is no key, and {chosen.host} can be reached by others: make one with "
            "`budgetguard keys create PROJECT`, or set BUDGETGUARD_API_KEY, or listen on 127.0.0.1"
        )
    return keyring.keyed


def _secret(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from error


def _check_proxies(text: str | None) -> None:
    for one in () if text is None else text.split(","):
        try:
            ip_network(one.strip(), strict=False)
        except ValueError:
            raise ConfigurationError(
                f"--trust-proxy must be addresses or networks of proxies, such as 10.0.0.5, not {one[:60]!r}"
            ) from None


def _check_tls(certificate: Path | None, key: Path | None) -> None:
    if (certificate is None) != (key is None):
        raise ConfigurationError("TLS needs both --ssl-certfile and --ssl-keyfile")
    for file in (certificate, key):
        if file is not None and not file.is_file():
            raise ConfigurationError(f"there is no file {file}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
