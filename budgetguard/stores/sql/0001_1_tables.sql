-- Money is in Nanos, time in milliseconds since 1970-01-01 UTC. Text that PostgreSQL cannot hold is
-- escaped by the client. Columns that are indexed never change, so that updates stay within a page.

CREATE TABLE @schema@.accounts (
    project text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    limit_nanos bigint,
    spent_nanos bigint NOT NULL,
    held_nanos bigint NOT NULL,
    expired_nanos bigint NOT NULL,
    expiries bigint NOT NULL,
    models jsonb NOT NULL,
    crossed bigint[] NOT NULL,
    duration text,
    timezone text NOT NULL,
    anchor_ms bigint NOT NULL,
    starts_ms bigint NOT NULL,
    ends_ms bigint,
    window_no bigint NOT NULL,
    epoch_no bigint NOT NULL,
    open_holds bigint NOT NULL,
    -- No open hold expires before this. It may be too early, never too late; NULL where none is open.
    next_due_ms bigint,
    created_ms bigint NOT NULL,
    updated_ms bigint NOT NULL,
    ephemeral boolean NOT NULL,
    PRIMARY KEY (project, name)
) WITH (fillfactor = 50);

CREATE INDEX accounts_ephemeral ON @schema@.accounts (project, created_ms) WHERE ephemeral;

-- Projects that are closed for writing, and why. A verb that writes looks here after it has taken its first
-- lock: to add a row, `freeze` locks the tables against verbs that have begun.
CREATE TABLE @schema@.frozen (
    project text COLLATE "C" PRIMARY KEY,
    note text NOT NULL
);

-- accounts, windows and epochs are parallel arrays: who is charged, the window that granted the hold, and the
-- epoch in which its cost was booked, if it was.
CREATE TABLE @schema@.holds (
    project text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    state text NOT NULL,
    accounts text[] COLLATE "C" NOT NULL,
    windows bigint[] NOT NULL,
    epochs bigint[],
    amount_nanos bigint NOT NULL,
    on_expiry_nanos bigint NOT NULL,
    cost_nanos bigint NOT NULL,
    created_ms bigint NOT NULL,
    expires_ms bigint NOT NULL,
    ended_ms bigint,
    "user" text,
    model text NOT NULL,
    endpoint text NOT NULL,
    outcome text,
    request_id text,
    usage jsonb NOT NULL,
    tags text[] NOT NULL,
    PRIMARY KEY (project, id)
) WITH (fillfactor = 60);

-- One row for each account of each open hold.
CREATE TABLE @schema@.charges (
    project text COLLATE "C" NOT NULL,
    account text COLLATE "C" NOT NULL,
    expires_ms bigint NOT NULL,
    hold_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (project, account, expires_ms, hold_id)
);

-- The provider's answers that holds wait for, by the SHA-256 of their ids, which may be of any length.
CREATE TABLE @schema@.answers (
    project text COLLATE "C" NOT NULL,
    answer bytea NOT NULL,
    hold_id text COLLATE "C" NOT NULL,
    request_id text NOT NULL,
    PRIMARY KEY (project, answer)
);

CREATE INDEX answers_hold ON @schema@.answers (project, hold_id);

-- Output tokens observed per model (the SHA-256 of its name): bucket -> answers. In shards, so that
-- settlements of one model do not wait for each other.
CREATE TABLE @schema@.observations (
    project text COLLATE "C" NOT NULL,
    model bytea NOT NULL,
    shard uuid NOT NULL DEFAULT gen_random_uuid(),
    counts jsonb NOT NULL,
    name text COLLATE "C" NOT NULL,
    PRIMARY KEY (project, model, shard)
) WITH (fillfactor = 50);

-- The greatest id of a hold whose record was swept, by project.
CREATE TABLE @schema@.swept (
    project text COLLATE "C" PRIMARY KEY,
    id text COLLATE "C" NOT NULL
);
