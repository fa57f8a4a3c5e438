"""`prices`: what models are charged at, and the newest price list."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any

from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from budgetguard.cli import options
from budgetguard.cli.session import new_console, write_json
from budgetguard.cli.tables import Cell, Column, listing, text_column
from budgetguard.core.wording import count, printable
from budgetguard.errors import ConfigurationError
from budgetguard.guard import Guard
from budgetguard.pricing.entries import FileEntry
from budgetguard.pricing.lists import ListFacts, kept_path
from budgetguard.pricing.pricefile import PriceFile
from budgetguard.pricing.quotes import EXTRA, FILE, LIST, PriceOrigin, Quote, QuotedPrice
from budgetguard.pricing.said import PRICE_KEYS

_SHOW = "show"
_PER = {1_000_000: "1M", 1_000: "1K", 1: "each", 3_600: "hour"}
_CHANGES_SHOWN = 10
_HIDDEN = ("container_sessions_", "drawn_tokens_")


class PriceCommands(TyperGroup):
    """The commands on prices. What names no command names a model to show."""

    def parse_args(self, context: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in self.get_help_option_names(context)):
            args = [_SHOW, *args]
        return super().parse_args(context, args)


prices = options.new_typer(
    name="prices",
    cls=PriceCommands,
    help="Show what models cost, and fetch the newest price list.\n\n"
    "`budgetguard prices MODEL` shows what a call is charged at, and from where; `budgetguard prices` which "
    "price file and which list are in force; `budgetguard prices update` fetches the newest list.\n\n"
    "\b\nExamples:\n"
    "  budgetguard prices gpt-5.5\n"
    "  budgetguard prices claude-opus-4-6 --base-url https://us-east5-aiplatform.googleapis.com\n"
    "  budgetguard prices --json\n"
    "  budgetguard prices update",
)

_File = Annotated[
    str | None, options.option("FILE", "A price file, in TOML. Else BUDGETGUARD_PRICES.", "--prices")
]


@prices.command(_SHOW)
def show(
    model: Annotated[str | None, options.argument("MODEL", "As calls name it: gpt-5, azure/gpt-4o.")] = None,
    provider: Annotated[
        str | None, options.option("NAME", "Whose prices: openai, azure, google. Else the model's prefix.")
    ] = None,
    base_url: Annotated[
        str | None, options.option("URL", "The address that is called, which tells the provider and region.")
    ] = None,
    file: _File = None,
    every: Annotated[
        bool, options.flag("Show containers and drawn images of hosted tools, too.", "--all")
    ] = False,
    json: options.Json = False,
) -> None:
    """Show what a model is charged at, in USD, from where each price comes, and of when it is.

    Without MODEL: what the price file says, and how old the price list is.

    \b
    Examples:
      budgetguard prices gpt-5.5
      budgetguard prices claude-opus-4-6 --base-url https://us-east5-aiplatform.googleapis.com
    """
    guard = Guard(**({} if file is None else {"prices": file}))
    book = guard.engine.prices
    try:
        if model is None:
            if provider is not None or base_url is not None:
                raise ConfigurationError("of which model? Write `budgetguard prices MODEL --provider NAME`")
            _show_lists(book.file, book.list.facts(), json=json)
            return
        named = guard.settings.model_of(model)
        found = book.quote(named, provider=provider, base_url=base_url)
    finally:
        guard.close()
    if json:
        write_json(_quote_object(found))
    else:
        _show_quote(found, new_console(), base_url, every=every)


@prices.command()
def update(
    url: Annotated[
        str | None, options.option("URL", "Where the list is. By default where genai-prices has its own.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Fetch genai-prices' newest list, check it, and keep it for every later process.

    It counts while it is newer than the list of the installed genai-prices. It is kept in the file that the
    setting `price_list` names. Where anything goes wrong, nothing changes.

    \b
    Example:
      budgetguard prices update
    """
    from budgetguard.pricing.updating import default_url, update

    setting = Guard().settings.price_list
    if setting is None:
        raise ConfigurationError(
            "BUDGETGUARD_PRICE_LIST is none, so no list can be kept: name a file with it, or leave it out"
        )
    done = update(kept_path(setting), url or default_url())
    today = datetime.now(UTC).date()
    if json:
        write_json(
            {
                "kept": None if done.kept is None else str(done.kept),
                "url": done.url,
                "before": _list_object(done.before, today),
                "after": _list_object(done.after, today),
                "changed": list(done.changed),
            }
        )
        return
    console = new_console()
    if done.kept is None:
        _say(console, f"Nothing was changed: the list there is not newer than {done.before.describe(today)}.")
        return
    few = ", ".join(map(printable, done.changed[:_CHANGES_SHOWN]))
    more = len(done.changed) - _CHANGES_SHOWN
    tail = f" and {more} more" if more > 0 else ""
    changed = (
        f"{count(len(done.changed), 'model')} new or changed: {few}{tail}." if done.changed else "No changes."
    )
    _say(
        console,
        f"{count(done.after.models, 'model')} of {count(done.after.providers, 'provider')}. {changed}",
    )
    _say(console, f"Kept in {printable(str(done.kept))}, for every process that starts from now on.")


def _show_lists(file: PriceFile | None, facts: ListFacts, *, json: bool) -> None:
    today = datetime.now(UTC).date()
    entries = () if file is None else file.entries()
    if json:
        write_json(
            {
                "file": None if file is None else str(file.path),
                "entries": [_entry_object(entry) for entry in entries],
                "list": _list_object(facts, today),
            }
        )
        return
    console = new_console()
    if entries:
        columns = [text_column("For"), Column("From", "left"), text_column("USD"), text_column("In")]
        rows: list[Sequence[Cell]] = [
            (
                _whose(entry),
                "" if entry.valid_from is None else f"{entry.valid_from:%Y-%m-%d}",
                _says(entry),
                entry.place,
            )
            for entry in entries
        ]
        console.print(listing(columns, rows, console))
    where = "No price file: name one with BUDGETGUARD_PRICES."
    if file is not None:
        number = "1 entry" if len(entries) == 1 else f"{len(entries)} entries"
        where = f"{number} in {printable(str(file.path))}; the most specific that fits counts."
    _say(console, where)
    models = f"{count(facts.models, 'model')} of {count(facts.providers, 'provider')}"
    _say(
        console,
        f"Other prices: {facts.describe(today)}, {models}; `budgetguard prices update` fetches the newest.",
    )


def _show_quote(quote: Quote, console: Console, base_url: str | None, *, every: bool) -> None:
    today = datetime.now(UTC).date()
    tiers = quote.tiers() or (None,)
    units = dict.fromkeys((price.unit, price.per) for price in quote.prices)
    hidden = 0 if every else sum(unit.startswith(_HIDDEN) for unit, _ in units)
    by = {(price.unit, price.tier): price for price in quote.prices}
    columns = [
        text_column("Unit"),
        Column("Per"),
        *(Column((tier or "standard").capitalize()) for tier in tiers),
        Column("From", "left"),
    ]
    notes: dict[str, str] = {}
    rows: list[Sequence[Cell]] = []
    for unit, per in units:
        if hidden and unit.startswith(_HIDDEN):
            continue
        of_unit = [by.get((unit, tier)) for tier in tiers]
        marks = dict.fromkeys(_mark(price, notes) for price in of_unit if price is not None)
        amounts = (Text("" if price is None else _usd(price.usd)) for price in of_unit)
        rows.append((unit, _PER.get(per, str(per)), *amounts, ", ".join(marks)))
        steps = [{} if price is None else dict(price.above) for price in of_unit]
        for start in sorted({start for above in steps for start in above}):
            higher = (Text(_usd(above[start]) if start in above else "") for above in steps)
            rows.append((f"  above {start:,}", "", *higher, ""))
    if rows:
        console.print(listing(columns, rows, console))
    free = " Tokens cost nothing." if quote.is_free else ""
    _say(console, f"{printable(quote.model)} at {printable(quote.provider)}, in USD.{free}")
    if hidden:
        _say(console, f"{count(hidden, 'price')} of containers and drawn images: --all")
    if quote.meaning is not None:
        said = PriceOrigin(EXTRA, quote.meaning.source, quote.meaning.taken, quote.meaning.read_in)
        _say(console, f"The name means {quote.meaning.model}: {said}.")
    if quote.factor != 1:
        at = f" at {printable(base_url)}" if base_url else ""
        _say(
            console, f"Tokens are multiplied by {quote.factor}{at}: {quote.factor_source}. That is included."
        )
    for note, mark in notes.items():
        _say(console, f"{mark}: {note}")
    if any(price.origin.kind == LIST for price in quote.prices) or not quote.prices:
        _say(console, f"list: {quote.facts.describe(today)}")


def _mark(price: QuotedPrice, notes: dict[str, str]) -> str:
    """Return what stands beside a price for its origin, after noting what that is."""
    kind, note = price.origin.kind, str(price.origin)
    if kind not in (EXTRA, FILE):
        return kind
    kinds = sum(mark.startswith(kind) for mark in notes.values())
    return notes.setdefault(note, f"{kind} {kinds + 1}")


def _usd(usd: Decimal) -> str:
    text = format(usd.normalize(), "f")
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.ljust(2, '0')}"


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=not console.is_terminal)


def _whose(entry: FileEntry) -> str:
    parts = (
        entry.model or "every model",
        entry.provider,
        None if entry.address is None else entry.address.url,
    )
    return printable(" at ".join(part for part in parts if part))


def _says(entry: FileEntry) -> str:
    if entry.factor is not None:
        return f"x {entry.factor}"
    names = {key: name for name, key in PRICE_KEYS.items()}
    return ", ".join(f"{names.get(key, key)} {_usd(price)}" for key, price in entry.prices.items())


def _entry_object(entry: FileEntry) -> dict[str, Any]:
    return {
        "place": entry.place,
        "model": entry.model,
        "provider": entry.provider,
        "base_url": None if entry.address is None else entry.address.url,
        "valid_from": None if entry.valid_from is None else entry.valid_from.isoformat(),
        "factor": None if entry.factor is None else format(entry.factor, "f"),
        "prices": {key: format(price, "f") for key, price in entry.prices.items()},
    }


def _list_object(facts: ListFacts, today: date) -> dict[str, Any]:
    return {
        "kind": facts.kind,
        "genai_prices": facts.version,
        "dated": None if facts.dated is None else facts.dated.isoformat(),
        "fetched_at": None if facts.fetched_at is None else facts.fetched_at.isoformat(),
        "age_days": facts.age_days(today),
        "providers": facts.providers,
        "models": facts.models,
    }


def _quote_object(quote: Quote) -> dict[str, Any]:
    return {
        "model": quote.model,
        "provider": quote.provider,
        "listed_as": quote.listed_as,
        "free": quote.is_free,
        "factor": format(quote.factor, "f"),
        "factor_source": quote.factor_source,
        "meaning_source": None if quote.meaning is None else quote.meaning.source,
        "prices": [
            {
                "unit": price.unit,
                "price_key": price.price_key,
                "per": price.per,
                "tier": price.tier,
                "usd": format(price.usd, "f"),
                "above": [{"input_tokens": start, "usd": format(usd, "f")} for start, usd in price.above],
                "origin": price.origin.kind,
                "source": price.origin.source,
                "taken": None if price.origin.taken is None else price.origin.taken.isoformat(),
                "read_in": price.origin.read_in,
            }
            for price in quote.prices
        ],
        "list": _list_object(quote.facts, datetime.now(UTC).date()),
    }
