"""A world in one thread: processes that make guarded calls, their store, and everything that goes wrong.

All that happens is drawn from one seed, step by step: calls begin, reserve, are answered, refused, time
out or are cancelled; streams outgrow their holds and are abandoned; verbs fail before and after they reach
the store, come late or twice; stores have outages; time passes; processes are killed and others take their
place. After every step the store is compared with an auditor that shares no code with it, and at the end
every call must have been booked as what it was.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from functools import partial
from pathlib import Path
from typing import Any, Final

from budgetguard import Guard, events
from budgetguard.core.accounts import Budget, Grant
from budgetguard.core.holds import Booked, Granted, Hold, Reservation, Settlement, UnknownAccount
from budgetguard.core.usage import Reported, Usage
from budgetguard.engine import call as calls
from budgetguard.engine import engine as bookkeeping
from budgetguard.engine import outbox
from budgetguard.engine.call import GuardedCall
from budgetguard.engine.flow import Flow, Step, Work, guarded
from budgetguard.engine.outcomes import Abandoned, Answered, Outcome
from budgetguard.engine.surrounding import budget_user
from budgetguard.errors import BudgetExceededError, StoreError
from budgetguard.stores import Store
from budgetguard.stores.base import Transfer
from budgetguard.stores.verifying import verify
from budgetguard.testing.clock import FakeClock
from tests.guarded_calls import MODEL, StatusError
from tests.model.answers import ended, recorded, said, shown
from tests.model.naive import Model

from .link import Link
from .processes import TOKEN, Attempt, Background, Cancelled, Process, Stream, WorldRequest

TTL: Final = 900_000
USERS: Final = ("a", "b", "c")
FAULTS: Final = ("before", "after", "late", "twice")

OpenStore = Callable[[FakeClock], Store]


class Broken(AssertionError):
    """Tell which law does not hold."""


class World:
    """Hold everything, and let one thing happen after another.

    Args:
        seed: from which everything is drawn.
        open_store: clock -> the store, as another process opens it.
        folder: for spools.
    """

    def __init__(self, seed: str, open_store: OpenStore, folder: Path) -> None:
        self.chance = random.Random(seed)
        self.clock = FakeClock()
        self.happened: list[str] = []
        self._open_store = open_store
        self._spool = folder
        self._eyes = open_store(self.clock)
        self._stores: list[Store] = [self._eyes]
        self._project = self._eyes.project
        self._model = Model()
        self._late: list[tuple[str, Callable[[], object]]] = []
        self._faultiness = self.chance.choice((0.0, 0.05, 0.2, 0.5))
        self._outage = False
        self._count = 0
        self._processes: list[Process] = []
        self._attempts: list[Attempt] = []
        self._ended: list[str] = []
        self._background = Background()
        for user in USERS:
            tokens = self.chance.choice((0, 50, 300, 1_000))
            duration = self.chance.choice((None, "hourly", "daily"))
            rolling = duration is not None and self.chance.random() < 0.4
            self._set_budget(f"user:{user}", Budget(tokens * TOKEN, duration, rolling=rolling))
        self._set_budget(f"project:{self._project}", Budget(self.chance.choice((200, 2_000, 10**6)) * TOKEN))
        self._start_process()

    @contextmanager
    def ours(self) -> Iterator[None]:
        """Put the world's background in the place of the threads."""
        before = bookkeeping.background, outbox.background, calls.background
        stand_in: Any = self._background
        bookkeeping.background = outbox.background = calls.background = stand_in
        try:
            yield
        finally:
            bookkeeping.background, outbox.background, calls.background = before
            for process in self._processes:
                process.die()
            for store in self._stores:
                store.close()

    # One step

    def step(self) -> None:
        """Let one thing happen, and check the laws."""
        process = self.chance.choice(self._processes)
        self._background.process = process
        deeds: list[tuple[float, Callable[[Process], None]]] = [
            (4, self._begin_call),
            (10, self._go_on),
            (1, self._run_job),
            (0.5, self._time_passes),
            (0.5, self._late_verb_arrives),
            (0.2, self._weather_changes),
            (0.15, self._kill),
            (0.1, self._start),
            (0.1, self._administrate),
        ]
        weights, todo = [weight for weight, _ in deeds], [deed for _, deed in deeds]
        self.chance.choices(todo, weights)[0](process)
        self.check()

    def _begin_call(self, process: Process) -> None:
        user = self.chance.choice(USERS)
        request = WorldRequest(self.chance.randrange(40), self.chance.randrange(1, 60))
        context = Context()

        def begin() -> tuple[GuardedCall, Flow]:
            with budget_user(user):
                call = GuardedCall(process.guard.engine, request)
                return call, guarded(call)

        call, flow = context.run(begin)
        attempt = Attempt(process, call, flow, context)
        process.attempts.append(attempt)
        self._attempts.append(attempt)
        self._tell(process, f"begins a call of {user}")

    def _go_on(self, process: Process) -> None:
        if not process.attempts:
            return
        attempt = self.chance.choice(process.attempts)
        if attempt.stream is not None:
            self._stream_on(attempt)
        elif not attempt.begun:
            attempt.begun = True
            self._advance(attempt, partial(next, attempt.flow))
        elif isinstance(attempt.step, Work):
            self._work(attempt, attempt.step)
        else:
            self._invoke(attempt)

    def _work(self, attempt: Attempt, work: Work) -> None:
        reserving = not attempt.invoked
        try:
            value = attempt.context.run(work.run)
        except BudgetExceededError as error:
            self._tell(attempt.process, f"is refused {self._name(attempt)}")
            self._advance(attempt, partial(attempt.flow.throw, error))
        except StoreError as error:
            if not reserving:
                raise Broken(f"a store's error was raised into a caller after its call: {error}") from error
            self._tell(attempt.process, f"is blocked {self._name(attempt)}: {error}")
            attempt.fate = 0
            self._advance(attempt, partial(attempt.flow.throw, error))
        else:
            self._tell(attempt.process, f"{'holds' if reserving else 'ends'} {self._name(attempt)}")
            if reserving:
                assert attempt.hold is not None
                held = self._model.calls.get(attempt.hold.id)
                if held is None or (not held.open() and held.expired is None):
                    raise Broken(f"{attempt.hold.id} is to be called, and no money is held for it")
            self._advance(attempt, partial(attempt.flow.send, value))

    def _invoke(self, attempt: Attempt) -> None:
        attempt.invoked = True
        assert attempt.hold is not None
        how = self.chance.choice(
            ("answered", "answered", "answered", "stream", "4xx", "timeout", "cancelled")
        )
        self._tell(attempt.process, f"calls {self._name(attempt)}: {how}")
        attempt.may_expire = True
        if how == "answered":
            tokens = self.chance.randrange(130)
            attempt.fate = tokens * TOKEN
            self._advance(attempt, partial(attempt.flow.send, tokens))
        elif how == "stream":
            self._advance(attempt, partial(attempt.flow.send, "stream"))
        elif how == "4xx":
            attempt.fate = 0
            self._advance(attempt, partial(attempt.flow.throw, StatusError(429)))
        else:
            attempt.fate = attempt.hold.on_expiry
            error = TimeoutError() if how == "timeout" else Cancelled()
            self._advance(attempt, partial(attempt.flow.throw, error))

    def _stream_on(self, attempt: Attempt) -> None:
        stream, call = attempt.stream, attempt.call
        assert stream is not None
        how = self.chance.choice(("on", "on", "ends", "abandoned"))
        if how == "on":
            stream.seen += self.chance.randrange(40)
            if call.output_held is not None and stream.seen > call.output_held:
                self._tell(attempt.process, f"extends {self._name(attempt)}")
                attempt.context.run(call.extend, stream.seen)
                attempt.extensions += call._extensions[len(attempt.extensions) :]
            return
        if how == "ends":
            used = Usage.of(output_tokens=stream.seen)
            outcome: Outcome = Answered(Reported(used))
            attempt.fate = stream.seen * TOKEN
        else:
            outcome = Abandoned(stream.seen)
            attempt.fate = call.projection.abandoned(stream.seen).input_tokens * TOKEN + stream.seen * TOKEN
        self._tell(attempt.process, f"stream {self._name(attempt)} {how}")
        attempt.context.run(call.finish, outcome)
        if self.chance.random() < 0.3:  # as when a stream is closed and then collected
            attempt.context.run(call.finish, Abandoned(stream.seen + 7))
        self._done(attempt)

    def _advance(self, attempt: Attempt, send: Callable[[], Step]) -> None:
        try:
            attempt.step = attempt.context.run(send)
        except StopIteration as stop:
            if isinstance(stop.value, Stream):
                attempt.stream = stop.value
                return
            if attempt.fate is None:
                raise Broken(f"{self._name(attempt)} returned {stop.value!r}, and nobody answered") from None
            self._done(attempt)
        except (BudgetExceededError, StoreError):
            if attempt.invoked:
                raise Broken(f"{self._name(attempt)} was answered, and its caller got an error") from None
            attempt.fate = 0
            self._done(attempt)
        except (StatusError, TimeoutError, Cancelled):
            self._done(attempt)

    def _done(self, attempt: Attempt) -> None:
        # What was told to a bookkeeper that lives on is booked exactly; of others only their expire may be.
        attempt.may_expire = False
        attempt.process.attempts.remove(attempt)

    # What happens to processes, and around them

    def _run_job(self, process: Process) -> None:
        if process.jobs:
            self._tell(process, "works in the background")
            process.jobs.popleft()()

    def _time_passes(self, _process: Process) -> None:
        seconds = self.chance.choice((0.001, 1, 60, 899, 900, 1_800, 3_600, 90_000))
        self.happened.append(f"{seconds} s pass")
        self.clock.advance(seconds)

    def _late_verb_arrives(self, _process: Process) -> None:
        if self._late:
            what, verb = self._late.pop(self.chance.randrange(len(self._late)))
            self.happened.append(f"late: {what}")
            verb()

    def _weather_changes(self, _process: Process) -> None:
        self._outage = self.chance.random() < 0.4
        self._faultiness = self.chance.choice((0.0, 0.0, 0.05, 0.2, 0.5))
        self.happened.append("an outage" if self._outage else f"{self._faultiness:.0%} of verbs fail")

    def _kill(self, process: Process) -> None:
        self._tell(process, "is killed")
        self._processes.remove(process)
        process.die()
        self._start_process()

    def _start(self, _process: Process) -> None:
        if len(self._processes) < 4:
            self._start_process()

    def _administrate(self, _process: Process) -> None:
        account = f"user:{self.chance.choice(USERS)}"
        self.happened.append(f"{account} is changed")
        deed = self.chance.random()
        if deed < 0.3:
            self._model.reset(account, self.clock())
            self._eyes.reset(account)
        elif deed < 0.6:
            seconds = self.chance.choice((None, 60, 3_600, 90_000))
            until = None if seconds is None else self.clock() + seconds * 1000
            grant = Grant(self.chance.choice("gh"), self.chance.randrange(300) * TOKEN, until)
            self._model.grant(account, grant.id, grant.amount, until, self.clock())
            self._eyes.grant(account, grant)
        else:
            duration = self.chance.choice((None, "hourly", "daily"))
            rollover = 0 if duration is None else self.chance.choice((0, 0, 100, 10_000)) * TOKEN
            self._set_budget(account, Budget(self.chance.randrange(800) * TOKEN, duration, rollover=rollover))

    def _set_budget(self, account: str, budget: Budget) -> None:
        self._model.set_budget(account, budget, self.clock())
        self._eyes.set_budget(account, budget)

    def _start_process(self) -> None:
        self._count += 1
        store = self._open_store(self.clock)
        if store is not self._eyes:
            self._stores.append(store)
        link = Link(store, "disk:///of/the/world", self, self)
        guard = Guard(store=link, project=self._project, clock=self.clock, spool=str(self._spool))
        guard.register_price(MODEL, input=1, output=1)
        for kind in (events.Settled, events.Voided):
            guard.on(lambda event: self._ended.append(event.hold_id), kind)
        process = Process(f"process {self._count}", guard)
        self._processes.append(process)
        self._background.process = process
        self._tell(process, "starts")

    # The weather, as links ask for it

    def fault(self, verb: str) -> str | None:
        found = None
        if self._outage:
            found = "before"
        elif self.chance.random() < self._faultiness:
            found = self.chance.choice(FAULTS)
        if found is not None:
            self.happened.append(f"    {verb}: {found}")
        return found

    def choose_first(self) -> bool:
        return self.chance.random() < 0.5

    def deliver_later(self, what: str, verb: Callable[[], object]) -> None:
        self._late.append((what, verb))

    # The audit

    def reserve(self, store: Store, hold: Hold) -> Reservation:
        expected = self._model.reserve(hold, self.clock())
        answer = store.reserve(hold)
        if said(answer) != expected:
            raise Broken(f"reserve {hold.id}: the store said {said(answer)}, and should say {expected}")
        if isinstance(answer, Granted) and not answer.repeated and hold.amount:
            for account in answer.accounts:
                now = self._model.standing(account)
                if now is not None and now.limit is not None and now.spent + now.held > now.limit:
                    raise Broken(f"{hold.id} was granted above the limit of {account}: {now}")
        return answer

    def settle(self, store: Store, hold: Hold, settlement: Settlement) -> Booked | UnknownAccount:
        expected, crossed = self._model.settle(hold, settlement, self.clock())
        answer = store.settle(hold, settlement)
        if isinstance(answer, UnknownAccount):
            raise Broken(f"settle {hold.id}: {answer.account} is not known")
        if ended(answer) != expected:
            raise Broken(f"settle {hold.id}: the store said {ended(answer)}, and should say {expected}")
        if {(one.account, one.threshold) for one in answer.crossings} != crossed:
            raise Broken(f"settle {hold.id}: thresholds {answer.crossings}, and should be {crossed}")
        return answer

    def check(self) -> None:
        """Compare all accounts and all records of the store with the auditor's.

        Raises:
            Broken: they differ.
        """
        self._model.look(self.clock())
        accounts = {name: self._model.standing(name) for name in self._model.accounts()}
        found = {balance.account: shown(balance) for balance in self._eyes.list()}
        if found != accounts:
            raise Broken(f"accounts differ:\n{found}\n{accounts}")
        records = {hold_id: self._model.record(hold_id) for hold_id in self._model.calls}
        listed = {one.id: recorded(one) for one in self._eyes.calls()}
        if listed != records:
            wrong = {i: (listed.get(i), records.get(i)) for i in listed.keys() | records.keys()}
            raise Broken(f"records differ: { ({i: w for i, w in wrong.items() if w[0] != w[1]}) }")
        # Not each time, since all records are added up.
        if len(self.happened) % 16 == 0:
            self._verify()
        twice = {one for one in self._ended if self._ended.count(one) > 1}
        if twice:
            raise Broken(f"told twice that they have ended: {twice}")

    def _verify(self) -> None:
        if isinstance(self._eyes, Transfer) and (differences := verify(self._eyes).differences):
            raise Broken(f"balances are not what their records come to: {differences}")

    # The end

    def end(self) -> None:
        """Let the weather clear and everything under way come to its end, and check every call's booking.

        Raises:
            Broken: a call is not booked as what it was.
        """
        self._outage, self._faultiness = False, 0.0
        self.happened.append("the weather clears")
        while any(process.attempts for process in self._processes):
            for process in self._processes:
                self._background.process = process
                if process.attempts:
                    self._go_on(process)
        while self._late:
            self._late_verb_arrives(self._processes[0])
        # Whoever died has left its spool to a process that starts after it.
        self._start_process()
        for process in self._processes:
            self._background.process = process
            process.guard.store  # noqa: B018 - opening it takes over what is in the spool
            process.guard.flush()
            process.jobs.clear()
            if process.guard.engine._outbox:
                raise Broken(f"{process.name} still keeps settlements, though the store takes them")
        self.clock.advance(TTL / 1000)
        self.check()
        self._verify()
        left = [path for path in self._spool.rglob("*") if path.is_file() and path.name != "store.json"]
        if left:
            raise Broken(f"files stay in the spool: {left}")
        for balance in self._eyes.list():
            if balance.held_nanos or balance.open_holds:
                raise Broken(f"{balance.account} still holds {balance.held_nanos} Nanos")
        for attempt in self._attempts:
            self._check_fate(attempt)
        project = self._model.standing(f"project:{self._project}")
        booked = sum(record.cost for record in map(self._model.record, self._model.calls))
        if project is None or project.spent != booked:
            raise Broken(f"the project has spent {project}, and its calls come to {booked}")

    def _check_fate(self, attempt: Attempt) -> None:
        for extension in attempt.extensions:
            lives = attempt.process in self._processes and not attempt.may_expire
            if lives and extension.id in self._model.calls and self._model.record(extension.id).cost:
                raise Broken(f"{extension.id} only extended a stream, and is booked")
        if attempt.hold is None:
            return
        call = self._model.calls.get(attempt.hold.id)
        if call is None:
            if attempt.invoked:
                raise Broken(f"{attempt.hold.id} was called, and there is no record of it")
            return
        state, cost, *_ = self._model.record(attempt.hold.id)
        if attempt.may_expire or (attempt.fate is None and attempt.process not in self._processes):
            if cost not in (attempt.fate, attempt.hold.on_expiry):
                raise Broken(f"{attempt.hold.id} of a killed process is booked at {cost}")
        elif attempt.fate == 0 and not attempt.invoked and attempt.process not in self._processes:
            # It was blocked, its hold may have been granted, and the process that knew so is dead.
            if cost not in (0, attempt.hold.on_expiry):
                raise Broken(f"{attempt.hold.id} was never called, and is booked at {cost}")
        elif cost != attempt.fate or state == "expired":
            raise Broken(f"{attempt.hold.id} cost {attempt.fate}, and is {state} at {cost}")

    def _name(self, attempt: Attempt) -> str:
        return "a call" if attempt.hold is None else attempt.hold.id[-6:]

    def _tell(self, process: Process, what: str) -> None:
        self.happened.append(f"{process.name} {what}")
