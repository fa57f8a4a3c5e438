"""`alerts`: the addresses that alerts go to."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from budgetguard.alerts.addresses import AlertAddress, address_of, check_addresses, masked
from budgetguard.alerts.wording import sample
from budgetguard.cli import options
from budgetguard.cli.session import new_console, write_json
from budgetguard.config import from_environment
from budgetguard.errors import ConfigurationError

alerts = options.new_typer(
    name="alerts", help="Try out and list the addresses that alerts go to.", no_args_is_help=True
)

_Urls = Annotated[
    list[str] | None,
    options.option("URL", "An address to take instead of those of BUDGETGUARD_ALERTS. May be repeated."),
]


@alerts.callback()
def _pass_on(context: typer.Context) -> None:
    # Options before `alerts` say which store and project are meant, and these commands need neither.
    context.default_map = {}


@alerts.command("test")
def try_out(url: _Urls = None, json: options.Json = False) -> None:
    """Send a test message to every address, and say which took it.

    The exit code is 1 if one did not.

    \b
    Examples:
      BUDGETGUARD_ALERTS=slack://TOKEN_A/TOKEN_B/TOKEN_C budgetguard alerts test
      budgetguard alerts test --url mailto://USER:PASSWORD@gmail.com
    """
    results = [_tried(one, send=True) for one in _addresses(url)]
    _write(results, json, "The test went to")
    if not all(one["ok"] for one in results):
        raise typer.Exit(1)


@alerts.command("list")
def list_all(url: _Urls = None, json: options.Json = False) -> None:
    """List the addresses without their secrets, and what is wrong with them. Sends nothing."""
    results = [_tried(one, send=False) for one in _addresses(url)]
    settings = from_environment()
    _write(results, json, "Alerts go to")
    if not json:
        told = ", ".join(f"{one} %" if isinstance(one, int) else one for one in settings.alert_on)
        quiet = "no quiet period" if settings.alert_quiet is None else f"quiet for {settings.alert_quiet}"
        new_console().print(f"Told: {told}; {quiet}.")
    if not all(one["ok"] for one in results):
        raise typer.Exit(1)


def _addresses(given: list[str] | None) -> tuple[str, ...]:
    urls = tuple(given or ()) or from_environment().alerts
    check_addresses(urls)
    if not urls:
        raise ConfigurationError(
            "there is no address to send alerts to: set BUDGETGUARD_ALERTS to such as "
            "slack://TOKEN_A/TOKEN_B/TOKEN_C, or give one with --url (what a program gives to configure() is "
            "not known here)"
        )
    return urls


def _tried(url: str, *, send: bool) -> dict[str, Any]:
    """Return what there is to say about an address: its name, whether it is good, and why not."""
    try:
        address: AlertAddress = address_of(url)
    except ConfigurationError as error:
        return {"address": masked(url), "ok": False, "problem": error.message}
    problem = address.send(sample()) if send else ""
    return {"address": address.shown, "ok": not problem, "problem": problem or None}


def _write(results: list[dict[str, Any]], json: bool, what: str) -> None:
    if json:
        write_json({"addresses": results})
        return
    console = new_console()
    for one in results:
        console.print(
            f"{'ok    ' if one['ok'] else 'FAILED'}  {one['address']}{': ' if one['problem'] else ''}"
            f"{one['problem'] or ''}",
            soft_wrap=True,
        )
    good, all_of = sum(one["ok"] for one in results), len(results)
    console.print(f"{what} {good} of {all_of} {'address' if all_of == 1 else 'addresses'}.")
