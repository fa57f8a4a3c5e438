-- Version 2: units, grants, rollover, rolling windows, rules and labels, scopes, and the audit trail.
-- The locks come first, in the order in which verbs take them. Functions that answer otherwise than before
-- get another number of parameters or another name: a client of version 1 that still runs finds none of
-- them, and says so, rather than book one unit as another.

LOCK TABLE @schema@.accounts IN ACCESS EXCLUSIVE MODE;
LOCK TABLE @schema@.holds IN ACCESS EXCLUSIVE MODE;

DROP FUNCTION @schema@.make_accounts, @schema@.charged, @schema@.windows, @schema@.reserve, @schema@.settle,
    @schema@.read, @schema@.set_budget, @schema@.reset, @schema@.delete, @schema@.present, @schema@.attached,
    @schema@.accounts_page, @schema@.holds_page, @schema@.open_page, @schema@.export_holds,
    @schema@.export_accounts, @schema@.restore;

-- `limit_nanos` is the budget's own; `grants` are the raises in force, [{id, amount, until}, …], NULL where
-- there are none. A rolling account has `parts`, [{epoch, until, spent, expired, expiries, models}, …], the
-- oldest first, and ends when that falls out; another has NULL. `revision` is the number of `rules` and
-- `labels`, 0 where both are empty. An account whose name begins with labels:@unit= counts another unit.
ALTER TABLE @schema@.accounts
    ADD COLUMN rollover_nanos bigint NOT NULL DEFAULT 0,
    ADD COLUMN grants jsonb,
    ADD COLUMN parts jsonb,
    ADD COLUMN rules text NOT NULL DEFAULT '',
    ADD COLUMN labels text NOT NULL DEFAULT '',
    ADD COLUMN revision bigint NOT NULL DEFAULT 0;

-- `units` are those other than USD: {unit: [set aside, booked if it expires, booked]}; `shadowed` the
-- accounts that would have refused the hold. NULL where there are none.
ALTER TABLE @schema@.holds
    ADD COLUMN units jsonb,
    ADD COLUMN labels jsonb,
    ADD COLUMN shadowed text[] COLLATE "C";

-- Which kinds of budgets a project has. `reserve` reads it after its first lock, without one on it.
CREATE TABLE @schema@.scopes (
    project text COLLATE "C" PRIMARY KEY,
    revision bigint NOT NULL,
    rules text NOT NULL
);

CREATE TABLE @schema@.entries (
    project text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    "text" text NOT NULL,
    PRIMARY KEY (project, id)
);
