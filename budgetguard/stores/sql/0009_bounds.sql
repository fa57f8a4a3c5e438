-- Sums have a bound, 1152921504606846976 (money.MAX_SUM). What was swept is not booked again. And functions look for
-- what they use in this schema alone: whoever may make functions elsewhere cannot have them run in here. This
-- step may be made twice.

-- Of projects of which records were swept, the greatest id of such a hold.
CREATE TABLE IF NOT EXISTS @schema@.swept (
    project text COLLATE "C" PRIMARY KEY,
    id text COLLATE "C" NOT NULL
);

DO $do$
DECLARE
    v_grant record;
BEGIN
    FOR v_grant IN
        SELECT a.privilege_type AS what, a.grantee::regrole AS who FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = '@schema@.moved'::regclass AND a.grantee NOT IN (0, c.relowner)
    LOOP
        EXECUTE format('GRANT %s ON @schema@.swept TO %s', v_grant.what, v_grant.who);
    END LOOP;
END
$do$;

-- A sum with an amount added to it, which may be negative. At the bound it stays, since what it would be
-- beyond it is not known any more.
CREATE OR REPLACE FUNCTION @schema@.plus(p_sum bigint, p_nanos bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_sum >= 1152921504606846976 THEN 1152921504606846976 ELSE least(p_sum + p_nanos, 1152921504606846976) END
$$;

-- The spend by model with a cost added to one; a model that cost nothing in the end is not listed.
CREATE OR REPLACE FUNCTION @schema@.book(p_models jsonb, p_model text, p_cost bigint) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN p_cost = 0 THEN p_models
        WHEN coalesce((p_models ->> p_model)::bigint, 0) + p_cost = 0 THEN p_models - p_model
        ELSE p_models || jsonb_build_object(
            p_model, @schema@.plus(coalesce((p_models ->> p_model)::bigint, 0), p_cost))
    END
$$;

-- End holds that nobody ended, on all of their accounts, and tell of them.
CREATE OR REPLACE FUNCTION @schema@.expire(p_project text, p_ids text[], p_now bigint) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_told jsonb;
BEGIN
    WITH ended AS (
        UPDATE @schema@.holds h SET state = 'expired', outcome = 'unknown', cost_nanos = h.on_expiry_nanos,
            ended_ms = p_now,
            epochs = (
                SELECT array_agg(CASE WHEN a.window_no = c.window_no THEN a.epoch_no END ORDER BY c.place)
                FROM unnest(h.accounts, h.windows) WITH ORDINALITY c(account, window_no, place)
                LEFT JOIN @schema@.accounts a ON a.project = p_project AND a.name = c.account)
        WHERE h.project = p_project AND h.id = ANY (p_ids)
        RETURNING h.*
    ), shares AS (
        SELECT a.name, e.model, e.amount_nanos, e.on_expiry_nanos, a.window_no = c.window_no AS counts
        FROM ended e, unnest(e.accounts, e.windows) c(account, window_no), @schema@.accounts a
        WHERE a.project = p_project AND a.name = c.account
    ), models AS (
        SELECT s.name, jsonb_object_agg(s.model, s.nanos) AS nanos FROM (
            SELECT t.name, t.model, least(sum(t.nanos), 1152921504606846976) AS nanos FROM (
                SELECT s.name, s.model, s.on_expiry_nanos AS nanos FROM shares s WHERE s.counts
                UNION ALL
                SELECT a.name, m.key, m.value::bigint FROM @schema@.accounts a, jsonb_each_text(a.models) m
                WHERE a.project = p_project AND a.name IN (SELECT s.name FROM shares s)
            ) t GROUP BY t.name, t.model HAVING sum(t.nanos) <> 0
        ) s GROUP BY s.name
    ), sums AS (
        SELECT s.name, count(*) AS holds, count(*) FILTER (WHERE s.counts) AS expiries,
            coalesce(sum(s.amount_nanos) FILTER (WHERE s.counts), 0) AS held,
            coalesce(sum(s.on_expiry_nanos) FILTER (WHERE s.counts), 0) AS booked
        FROM shares s GROUP BY s.name
    ), booked AS (
        UPDATE @schema@.accounts a SET open_holds = a.open_holds - s.holds, held_nanos = a.held_nanos - s.held,
            spent_nanos = least(a.spent_nanos + s.booked, 1152921504606846976),
            expired_nanos = least(a.expired_nanos + s.booked, 1152921504606846976),
            expiries = a.expiries + s.expiries, models = coalesce(m.nanos, '{}')
        FROM sums s LEFT JOIN models m ON m.name = s.name WHERE a.project = p_project AND a.name = s.name
    ), closed AS (
        DELETE FROM @schema@.charges c USING ended e
        WHERE c.project = p_project AND c.account = ANY (e.accounts) AND c.expires_ms = e.expires_ms
            AND c.hold_id = e.id
    )
    SELECT coalesce(jsonb_agg(jsonb_build_object('hold_id', e.id, 'accounts', e.accounts,
        'amount', e.amount_nanos, 'booked', e.on_expiry_nanos, 'user', e."user", 'model', e.model)
        ORDER BY e.expires_ms, e.id), '[]') INTO v_told
    FROM ended e;
    RETURN v_told;
END
$$;

-- Set an amount aside on all accounts of a hold that exist, or on none. Answers one of
-- {granted, repeated, expired}, {refused, expired}, {unknown}, {unlimited}, {again, lock, windows, missing}.
-- Flags of a charge: 1 required, 2 has a budget, 4 its account's limit becomes that in `p_limits`.
-- `p_also` are further accounts to lock.
CREATE OR REPLACE FUNCTION @schema@.reserve(
    p_project text, p_id text, p_names text[], p_flags bigint[], p_limits bigint[], p_amount bigint,
    p_on_expiry bigint, p_ttl bigint, p_created bigint, p_user text, p_model text, p_endpoint text,
    p_tags text[], p_now bigint, p_also text[], p_windows jsonb, p_making jsonb
) RETURNS jsonb LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    v_moved text;
    v_now bigint;
    v_rows @schema@.accounts[];
    v_row @schema@.accounts;
    v_found text[];
    v_made text[] := '{}';
    v_prior text[];
    v_taken text[];
    v_missing text[];
    v_unknown text;
    v_is_due boolean := false;
    v_again jsonb;
    v_expired jsonb := '[]';
    v_windows bigint[] := '{}';
    v_place integer;
BEGIN
    v_found := p_names || p_also;
    IF p_making IS NOT NULL THEN
        SELECT * INTO v_found, v_made FROM @schema@.make_accounts(p_project, v_found, p_making);
    END IF;
    SELECT array_agg(a), coalesce(array_agg(a.name), '{}') INTO v_rows, v_found FROM (
        SELECT * FROM @schema@.accounts WHERE project = p_project AND name = ANY (v_found)
        ORDER BY name FOR UPDATE
    ) a;
    v_moved := (SELECT m.moved_to FROM @schema@.moved m WHERE m.project = p_project);
    IF v_moved IS NOT NULL THEN
        PERFORM @schema@.unmake_accounts(p_project, v_made);
        RETURN jsonb_build_object('moved', v_moved);
    END IF;
    SELECT h.accounts INTO v_prior FROM @schema@.holds h WHERE h.project = p_project AND h.id = p_id;
    IF FOUND THEN
        PERFORM @schema@.unmake_accounts(p_project, v_made);
        RETURN jsonb_build_object('granted', v_prior, 'repeated', true);
    END IF;
    v_now := @schema@.present_ms(p_now);
    SELECT * INTO v_taken, v_missing, v_unknown FROM @schema@.charged(p_names, p_flags, v_found, v_made);
    IF v_unknown IS NOT NULL THEN
        PERFORM @schema@.unmake_accounts(p_project, v_made);
        RETURN jsonb_build_object('unknown', v_unknown);
    ELSIF v_missing <> '{}' THEN
        PERFORM @schema@.unmake_accounts(p_project, v_made);
        RETURN jsonb_build_object('again', true, 'missing', v_missing, 'now', v_now);
    ELSIF v_taken = '{}' THEN
        RETURN jsonb_build_object('unlimited', true);
    END IF;
    FOREACH v_row IN ARRAY v_rows LOOP
        v_is_due := v_is_due OR coalesce(v_row.next_due_ms <= v_now, false) OR coalesce(v_row.ends_ms <= v_now, false);
    END LOOP;
    IF v_is_due THEN
        SELECT * INTO v_again, v_expired FROM @schema@.catch_up(
            p_project, v_taken, v_found, v_now, '', true, p_windows);
        IF v_again IS NOT NULL THEN
            PERFORM @schema@.unmake_accounts(p_project, v_made);
            RETURN v_again;
        END IF;
        SELECT array_agg(a) INTO v_rows FROM (
            SELECT * FROM @schema@.accounts WHERE project = p_project AND name = ANY (v_found) ORDER BY name
        ) a;
    END IF;
    FOR i IN 1 .. cardinality(v_taken) LOOP
        v_row := v_rows[array_position(v_found, v_taken[i])];
        v_place := array_position(p_names, v_taken[i]);
        IF p_flags[v_place] & 4 <> 0 THEN
            v_row.limit_nanos := p_limits[v_place];
        END IF;
        IF p_amount <> 0
            AND p_amount > least(v_row.limit_nanos, 1152921504606846976) - v_row.spent_nanos - v_row.held_nanos THEN
            v_row.limit_nanos := least(v_row.limit_nanos, 1152921504606846976);
            PERFORM @schema@.unmake_accounts(p_project, v_made);
            RETURN jsonb_build_object('refused', @schema@.balance(v_row), 'expired', v_expired);
        END IF;
        v_windows := v_windows || v_row.window_no;
    END LOOP;
    WITH hold AS (
        INSERT INTO @schema@.holds VALUES (
            p_project, p_id, 'held', v_taken, v_windows, NULL, p_amount, p_on_expiry, 0, p_created,
            v_now + p_ttl, NULL, p_user, p_model, p_endpoint, NULL, NULL, '{}', p_tags)
        ON CONFLICT DO NOTHING RETURNING 1
    ), charges AS (
        INSERT INTO @schema@.charges SELECT p_project, n, v_now + p_ttl, p_id FROM unnest(v_taken) n
    ), accounts AS (
        UPDATE @schema@.accounts SET held_nanos = held_nanos + p_amount, open_holds = open_holds + 1,
            next_due_ms = least(next_due_ms, v_now + p_ttl), updated_ms = v_now,
            limit_nanos = CASE WHEN p_flags[array_position(p_names, name)] & 4 <> 0
                THEN p_limits[array_position(p_names, name)] ELSE limit_nanos END
        WHERE project = p_project AND name = ANY (v_taken)
    )
    SELECT count(*) INTO v_place FROM hold;
    IF v_place = 0 THEN
        RAISE EXCEPTION 'somebody else made the hold' USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN jsonb_build_object('granted', v_taken, 'repeated', false, 'expired', v_expired);
END
$$;

-- Book what a call cost, once per hold id. Answers one of
-- {settled, late, crossings, expired}, {repeated}, {unknown}, {again, lock, windows, missing}.
-- What is said of the hold itself (p_amount to p_tags) is for a hold that is not known here.
CREATE OR REPLACE FUNCTION @schema@.settle(
    p_project text, p_id text, p_names text[], p_flags bigint[], p_amount bigint, p_on_expiry bigint,
    p_ttl bigint, p_created bigint, p_user text, p_model text, p_endpoint text, p_tags text[],
    p_state text, p_cost bigint, p_outcome text, p_request_id text, p_usage jsonb, p_thresholds bigint[],
    p_observed text[], p_buckets text[], p_fade_at bigint,
    p_now bigint, p_also text[], p_windows jsonb, p_making jsonb
) RETURNS jsonb LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    v_moved text;
    v_epochs bigint[];
    v_now bigint;
    v_rows @schema@.accounts[];
    v_row @schema@.accounts;
    v_hold @schema@.holds;
    v_known boolean;
    v_open boolean;
    v_late boolean;
    v_found text[];
    v_made text[] := '{}';
    v_taken text[];
    v_missing text[];
    v_unknown text;
    v_lock text[];
    v_is_due boolean := false;
    v_again jsonb;
    v_expired jsonb := '[]';
    v_place integer;
    v_percent bigint;
    v_reached bigint[];
    v_crossings jsonb := '[]';
BEGIN
    v_found := p_names || p_also;
    IF p_making IS NOT NULL THEN
        SELECT * INTO v_found, v_made FROM @schema@.make_accounts(p_project, v_found, p_making);
    END IF;
    SELECT array_agg(a), coalesce(array_agg(a.name), '{}') INTO v_rows, v_found FROM (
        SELECT * FROM @schema@.accounts WHERE project = p_project AND name = ANY (v_found)
        ORDER BY name FOR UPDATE
    ) a;
    v_moved := (SELECT m.moved_to FROM @schema@.moved m WHERE m.project = p_project);
    IF v_moved IS NOT NULL THEN
        PERFORM @schema@.unmake_accounts(p_project, v_made);
        RETURN jsonb_build_object('moved', v_moved);
    END IF;
    SELECT * INTO v_hold FROM @schema@.holds WHERE project = p_project AND id = p_id;
    IF FOUND AND (v_hold.state <> 'held' OR v_hold.accounts = '{}') THEN
        -- Else whoever ends it has locked one of its accounts, which are all there.
        SELECT * INTO v_hold FROM @schema@.holds WHERE project = p_project AND id = p_id FOR UPDATE;
    END IF;
    v_known := FOUND;
    v_now := @schema@.present_ms(p_now);
    IF v_known THEN
        IF v_made <> '{}' THEN
            PERFORM @schema@.unmake_accounts(p_project, v_made);
        END IF;
        IF v_hold.state IN ('settled', 'voided') THEN
            RETURN jsonb_build_object('repeated', true);
        END IF;
        v_taken := v_hold.accounts;
        IF NOT v_taken <@ v_found THEN
            -- Accounts that the client did not name, or that were made with this hold since the locks above.
            SELECT array_agg(name) INTO v_lock FROM @schema@.accounts
            WHERE project = p_project AND name = ANY (v_taken) AND NOT name = ANY (v_found);
            IF v_lock IS NOT NULL THEN
                RETURN jsonb_build_object('again', true, 'lock', v_lock);
            END IF;
        END IF;
    ELSIF EXISTS (SELECT 1 FROM @schema@.swept s WHERE s.project = p_project AND p_id <= s.id) THEN
        -- As old as records that were swept: it may have been booked.
        PERFORM @schema@.unmake_accounts(p_project, v_made);
        RETURN jsonb_build_object('repeated', true);
    ELSE
        SELECT * INTO v_taken, v_missing, v_unknown FROM @schema@.charged(p_names, p_flags, v_found, v_made);
        IF v_unknown IS NOT NULL THEN
            PERFORM @schema@.unmake_accounts(p_project, v_made);
            RETURN jsonb_build_object('unknown', v_unknown);
        ELSIF v_missing <> '{}' THEN
            PERFORM @schema@.unmake_accounts(p_project, v_made);
            RETURN jsonb_build_object('again', true, 'missing', v_missing, 'now', v_now);
        END IF;
    END IF;
    IF v_rows IS NOT NULL THEN
        FOREACH v_row IN ARRAY v_rows LOOP
            v_is_due := v_is_due OR coalesce(v_row.next_due_ms <= v_now, false)
                OR coalesce(v_row.ends_ms <= v_now, false);
        END LOOP;
    END IF;
    IF v_is_due THEN
        SELECT * INTO v_again, v_expired FROM @schema@.catch_up(
            p_project, v_taken, v_found, v_now, p_id, true, p_windows);
        IF v_again IS NOT NULL THEN
            PERFORM @schema@.unmake_accounts(p_project, v_made);
            RETURN v_again;
        END IF;
        SELECT array_agg(a) INTO v_rows FROM (
            SELECT * FROM @schema@.accounts WHERE project = p_project AND name = ANY (v_found) ORDER BY name
        ) a;
    END IF;
    IF NOT v_known THEN
        SELECT p_project, p_id, 'held', v_taken,
            array(SELECT r.window_no FROM unnest(v_taken) WITH ORDINALITY t(name, place)
                JOIN unnest(v_rows) r ON r.name = t.name ORDER BY t.place),
            NULL, p_amount, p_on_expiry, 0, p_created, v_now + p_ttl, NULL, p_user, p_model, p_endpoint, NULL,
            NULL, '{}', p_tags
        INTO v_hold;
        INSERT INTO @schema@.holds VALUES (v_hold.*) ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'somebody else made the hold' USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;
    v_open := v_known AND v_hold.state = 'held';
    v_late := v_hold.state = 'expired';
    v_epochs := coalesce(v_hold.epochs, array_fill(NULL::bigint, ARRAY[cardinality(v_taken)]));
    FOR i IN 1 .. cardinality(v_taken) LOOP
        v_place := array_position(v_found, v_taken[i]);
        CONTINUE WHEN v_place IS NULL;
        v_row := v_rows[v_place];
        v_reached := '{}';
        IF v_row.window_no = v_hold.windows[i] THEN
            IF v_late AND v_hold.epochs[i] = v_row.epoch_no THEN
                v_row.spent_nanos := @schema@.plus(v_row.spent_nanos, -v_hold.on_expiry_nanos);
                v_row.models := @schema@.book(v_row.models, v_hold.model, -v_hold.on_expiry_nanos);
                v_row.expired_nanos := @schema@.plus(v_row.expired_nanos, -v_hold.on_expiry_nanos);
                v_row.expiries := v_row.expiries - 1;
            END IF;
            IF v_open THEN
                v_row.held_nanos := v_row.held_nanos - v_hold.amount_nanos;
            END IF;
            v_row.spent_nanos := @schema@.plus(v_row.spent_nanos, p_cost);
            v_row.models := @schema@.book(v_row.models, v_hold.model, p_cost);
            v_epochs[i] := v_row.epoch_no;
            IF v_row.limit_nanos <> 0 THEN
                FOREACH v_percent IN ARRAY p_thresholds LOOP
                    IF v_row.spent_nanos::numeric * 100 >= v_percent::numeric * v_row.limit_nanos
                        AND NOT v_percent = ANY (v_row.crossed) THEN
                        v_reached := v_reached || v_percent;
                    END IF;
                END LOOP;
            END IF;
        END IF;
        UPDATE @schema@.accounts SET spent_nanos = v_row.spent_nanos, models = v_row.models,
            expired_nanos = v_row.expired_nanos, expiries = v_row.expiries, held_nanos = v_row.held_nanos,
            crossed = crossed || v_reached, open_holds = open_holds - v_open::integer, updated_ms = v_now
        WHERE project = p_project AND name = v_row.name
        RETURNING * INTO v_row;
        FOREACH v_percent IN ARRAY v_reached LOOP
            v_crossings := v_crossings || jsonb_build_object(
                'account', v_row.name, 'threshold', v_percent, 'balance', @schema@.balance(v_row));
        END LOOP;
    END LOOP;
    WITH closed AS (
        DELETE FROM @schema@.charges WHERE v_open AND project = p_project AND account = ANY (v_taken)
            AND expires_ms = v_hold.expires_ms AND hold_id = p_id
    )
    UPDATE @schema@.holds SET state = p_state, cost_nanos = p_cost, ended_ms = v_now, outcome = p_outcome,
        request_id = coalesce(p_request_id, request_id), usage = p_usage,
        epochs = v_epochs
    WHERE project = p_project AND id = p_id;
    FOR i IN 1 .. cardinality(p_observed) LOOP
        PERFORM @schema@.observe(p_project, p_observed[i], p_buckets[i], p_fade_at);
    END LOOP;
    RETURN jsonb_build_object('settled', p_cost, 'late', v_late, 'crossings', v_crossings, 'expired', v_expired);
END
$$;

-- Remove records of calls that ended before the retention (milliseconds), with their answers, and idle
-- accounts that may be forgotten: at most `p_most` of each, and none that somebody else is at.
CREATE OR REPLACE FUNCTION @schema@.sweep(p_project text, p_now bigint, p_retention bigint, p_most bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_before bigint := greatest(@schema@.present_ms(p_now) - p_retention, 0);
BEGIN
    IF EXISTS (SELECT 1 FROM @schema@.moved m WHERE m.project = p_project) THEN
        RETURN;
    END IF;
    DELETE FROM @schema@.accounts a USING (
        SELECT o.name FROM @schema@.accounts o
        WHERE o.project = p_project AND o.ephemeral AND o.created_ms < v_before AND o.updated_ms < v_before
            AND o.open_holds = 0
        ORDER BY o.created_ms LIMIT p_most FOR UPDATE SKIP LOCKED
    ) old WHERE a.project = p_project AND a.name = old.name;
    WITH old AS (
        -- An id begins with when its hold was made, which is before it ended.
        SELECT o.id FROM @schema@.holds o
        WHERE o.project = p_project AND o.id < lpad(to_hex(v_before), 12, '0') AND coalesce(
            o.ended_ms, CASE WHEN o.accounts = '{}' THEN o.expires_ms END) < v_before
        ORDER BY o.id LIMIT p_most FOR UPDATE SKIP LOCKED
    ), forgotten AS (
        DELETE FROM @schema@.answers a USING old WHERE a.project = p_project AND a.hold_id = old.id
    ), deleted AS (
        DELETE FROM @schema@.holds h USING old WHERE h.project = p_project AND h.id = old.id
    )
    INSERT INTO @schema@.swept SELECT p_project, max(old.id) FROM old HAVING count(*) > 0
    ON CONFLICT (project) DO UPDATE SET id = greatest(swept.id, excluded.id);
END
$$;

-- As in 0004, and of a model too many nothing is learned: the number is `learning.MOST_MODELS`.
CREATE OR REPLACE FUNCTION @schema@.observe(p_project text, p_name text, p_bucket text, p_fade_at bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_model bytea := sha256(convert_to(p_name, 'UTF8'));
    v_shard uuid;
    v_counts jsonb;
BEGIN
    SELECT o.shard, @schema@.book(o.counts, p_bucket, 1) INTO v_shard, v_counts
    FROM @schema@.observations o WHERE o.project = p_project AND o.model = v_model
    ORDER BY o.shard LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        IF NOT EXISTS (SELECT 1 FROM @schema@.observations o WHERE o.project = p_project AND o.model = v_model)
            AND (SELECT count(DISTINCT o.model) FROM @schema@.observations o WHERE o.project = p_project) >= 2000
        THEN
            RETURN;
        END IF;
        INSERT INTO @schema@.observations (project, model, counts, name)
        VALUES (p_project, v_model, jsonb_build_object(p_bucket, 1), p_name);
        RETURN;
    END IF;
    IF (SELECT sum(c.value::bigint) FROM jsonb_each_text(v_counts) c) >= p_fade_at THEN
        SELECT coalesce(jsonb_object_agg(c.key, c.value::bigint / 2), '{}') INTO v_counts
        FROM jsonb_each_text(v_counts) c WHERE c.value::bigint > 1;
    END IF;
    UPDATE @schema@.observations SET counts = v_counts
    WHERE project = p_project AND model = v_model AND shard = v_shard;
END
$$;

CREATE OR REPLACE FUNCTION @schema@.swept_to(p_project text) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT to_jsonb(s.id) FROM @schema@.swept s WHERE s.project = p_project
$$;

-- Insert or replace rows: {holds, accounts, removed, models, swept}, as in 0008 but for the last.
CREATE OR REPLACE FUNCTION @schema@.restore(p_project text, p_rows jsonb, p_copy text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_moved text;
    v_names text[];
BEGIN
    SELECT coalesce(array_agg(n), '{}') INTO v_names FROM (
        SELECT r ->> 'name' AS n FROM jsonb_array_elements(p_rows -> 'accounts') r
        UNION ALL SELECT jsonb_array_elements_text(p_rows -> 'removed')
    ) s;
    PERFORM @schema@.lock_accounts(p_project, v_names);
    v_moved := (SELECT m.moved_to FROM @schema@.moved m WHERE m.project = p_project);
    IF NOT starts_with(v_moved, p_copy) THEN
        RETURN jsonb_build_object('moved', v_moved);
    END IF;
    DELETE FROM @schema@.holds h USING jsonb_array_elements(p_rows -> 'holds') r
    WHERE h.project = p_project AND h.id = r ->> 'id';
    INSERT INTO @schema@.holds SELECT h.* FROM jsonb_array_elements(p_rows -> 'holds') r,
        jsonb_populate_record(NULL::@schema@.holds, r || jsonb_build_object('project', p_project)) h;
    INSERT INTO @schema@.answers
    SELECT p_project, sha256(convert_to(a, 'UTF8')), r ->> 'id', a
    FROM jsonb_array_elements(p_rows -> 'holds') r, jsonb_array_elements_text(r -> 'answers') a
    ON CONFLICT (project, answer) DO UPDATE SET hold_id = excluded.hold_id;
    DELETE FROM @schema@.charges WHERE project = p_project AND account = ANY (v_names);
    DELETE FROM @schema@.accounts WHERE project = p_project AND name = ANY (v_names);
    INSERT INTO @schema@.accounts SELECT a.* FROM jsonb_array_elements(p_rows -> 'accounts') r,
        jsonb_populate_record(NULL::@schema@.accounts, r || jsonb_build_object('project', p_project)) a;
    INSERT INTO @schema@.charges SELECT p_project, r ->> 'name', o.value::bigint, o.key
    FROM jsonb_array_elements(p_rows -> 'accounts') r, jsonb_each_text(r -> 'open') o;
    DELETE FROM @schema@.observations o USING jsonb_array_elements(p_rows -> 'models') r
    WHERE o.project = p_project AND o.model = sha256(convert_to(r ->> 'name', 'UTF8'));
    INSERT INTO @schema@.observations (project, model, counts, name)
    SELECT p_project, sha256(convert_to(r ->> 'name', 'UTF8')), r -> 'counts', r ->> 'name'
    FROM jsonb_array_elements(p_rows -> 'models') r;
    INSERT INTO @schema@.swept SELECT p_project, p_rows ->> 'swept' WHERE p_rows ->> 'swept' <> ''
    ON CONFLICT (project) DO UPDATE SET id = greatest(swept.id, excluded.id);
    RETURN 'null';
END
$$;

DO $do$
DECLARE
    v_function regprocedure;
BEGIN
    FOR v_function IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = '@schema@'::regnamespace LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, @schema@, pg_temp', v_function);
    END LOOP;
END
$do$;
