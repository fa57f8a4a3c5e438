-- What the verbs are made of. Every verb first locks all of its accounts in order of their names, then its
-- holds, so no two verbs can deadlock. An account that was not there to be locked does not exist for the
-- verb, though another session may make it meanwhile: to lock it then would be out of order. A verb that
-- needs an account that it has not locked, or a window that is not computed yet, writes nothing: it answers
-- `again` with what it needs, and the client calls it once more.

CREATE FUNCTION @schema@.present_ms(p_now bigint) RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(p_now, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
$$;

CREATE FUNCTION @schema@.balance(a @schema@.accounts) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'account', a.name, 'limit_nanos', a.limit_nanos, 'spent_nanos', a.spent_nanos,
        'held_nanos', a.held_nanos, 'duration', a.duration, 'timezone', a.timezone,
        'starts_ms', a.starts_ms, 'resets_ms', a.ends_ms, 'created_ms', a.created_ms,
        'updated_ms', a.updated_ms, 'models', a.models, 'expired_nanos', a.expired_nanos,
        'expiries', a.expiries, 'open_holds', a.open_holds)
$$;

-- A sum plus an amount, which may be negative. A sum that has reached the bound (`money.MAX_SUM`) stays
-- there, since what it would be beyond that is unknown.
CREATE FUNCTION @schema@.plus(p_sum bigint, p_nanos bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_sum >= @max_sum@ THEN @max_sum@ ELSE least(p_sum + p_nanos, @max_sum@) END
$$;

-- The spend by model with a cost added to one; a model that cost nothing in the end is not listed.
CREATE FUNCTION @schema@.book(p_models jsonb, p_model text, p_cost bigint) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN p_cost = 0 THEN p_models
        WHEN coalesce((p_models ->> p_model)::bigint, 0) + p_cost = 0 THEN p_models - p_model
        ELSE p_models || jsonb_build_object(
            p_model, @schema@.plus(coalesce((p_models ->> p_model)::bigint, 0), p_cost))
    END
$$;

-- Lock accounts, and return the names of those that exist.
CREATE FUNCTION @schema@.lock_accounts(p_project text, p_names text[]) RETURNS text[]
LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT coalesce(array_agg(a.name), '{}') FROM (
        SELECT name FROM @schema@.accounts WHERE project = p_project AND name = ANY (p_names)
        ORDER BY name FOR UPDATE
    ) a);
END
$$;

-- Lock accounts, and make those that are missing and that `p_making` describes.
CREATE FUNCTION @schema@.make_accounts(
    p_project text, p_names text[], p_making jsonb, OUT locked text[], OUT made text[]
) LANGUAGE plpgsql AS $$
DECLARE
    v_name text;
    v_new jsonb;
    v_now bigint;
BEGIN
    locked := '{}';
    made := '{}';
    FOR v_name IN SELECT DISTINCT n COLLATE "C" FROM unnest(p_names) n ORDER BY 1 LOOP
        PERFORM 1 FROM @schema@.accounts a WHERE a.project = p_project AND a.name = v_name FOR UPDATE;
        IF FOUND THEN
            locked := locked || v_name;
        END IF;
        CONTINUE WHEN FOUND OR NOT p_making ? v_name;
        v_new := p_making -> v_name;
        v_now := (v_new ->> 'now')::bigint;
        INSERT INTO @schema@.accounts VALUES (
            p_project, v_name, (v_new ->> 'limit')::bigint, 0, 0, 0, 0, '{}', '{}', v_new ->> 'duration',
            v_new ->> 'timezone', (v_new ->> 'anchor')::bigint, (v_new ->> 'start')::bigint,
            (v_new ->> 'end')::bigint, (v_new ->> 'life')::bigint, (v_new ->> 'life')::bigint, 0, NULL,
            v_now, v_now, (v_new ->> 'ephemeral')::boolean)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'another session made the account' USING ERRCODE = 'serialization_failure';
        END IF;
        locked := locked || v_name;
        made := made || v_name;
    END LOOP;
END
$$;

CREATE FUNCTION @schema@.unmake_accounts(p_project text, p_made text[]) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM @schema@.accounts WHERE project = p_project AND name = ANY (p_made)
$$;

-- The accounts that the charges of a hold come down to: those that exist, and those that it makes.
-- `p_found` are the locked accounts, `p_made` those of them that this verb made: they count from the charge
-- that has a budget for them. Flags: 1 required, 2 has a budget.
CREATE FUNCTION @schema@.charged(
    p_names text[], p_flags bigint[], p_found text[], p_made text[],
    OUT taken text[], OUT missing text[], OUT unknown text
) LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_name text;
    v_exists boolean;
BEGIN
    taken := '{}';
    missing := '{}';
    FOR i IN 1 .. cardinality(p_names) LOOP
        v_name := p_names[i];
        CONTINUE WHEN v_name = ANY (taken);
        v_exists := v_name = ANY (p_found);
        IF v_exists AND NOT v_name = ANY (p_made) OR p_flags[i] & 2 <> 0 THEN
            taken := taken || v_name;
            IF NOT v_exists THEN
                missing := missing || v_name;
            END IF;
        ELSIF p_flags[i] & 1 <> 0 THEN
            unknown := v_name;
            RETURN;
        END IF;
    END LOOP;
END
$$;

-- Bring accounts up to the present: end the holds that have expired, then, if `p_roll`, the windows that
-- are over. A hold that expires is booked on all of its accounts, in the windows that are stored; so an
-- account that is not among `p_names` stays as it was otherwise. Only accounts in `p_locked`, which this
-- verb has locked, are written.
-- `p_windows` are the next windows as the client computed them; one counts if it was computed from the
-- span that is stored, and if it is the present one.
CREATE FUNCTION @schema@.catch_up(
    p_project text, p_names text[], p_locked text[], p_now bigint, p_sparing text, p_roll boolean,
    p_windows jsonb, OUT again jsonb, OUT expired jsonb
) LANGUAGE plpgsql AS $$
DECLARE
    v_due text[];
    v_touched text[];
    v_lock text[];
    v_over jsonb;
BEGIN
    expired := '[]';
    p_names := array(SELECT n FROM unnest(p_names) n WHERE n = ANY (p_locked));
    SELECT coalesce(array_agg(DISTINCT c.hold_id), '{}') INTO v_due FROM @schema@.charges c
    WHERE c.project = p_project AND c.account = ANY (p_names) AND c.expires_ms <= p_now
        AND c.hold_id <> p_sparing;
    SELECT coalesce(array_agg(DISTINCT a.name), '{}') INTO v_touched
    FROM @schema@.holds h JOIN @schema@.accounts a ON a.project = p_project AND a.name = ANY (h.accounts)
    WHERE h.project = p_project AND h.id = ANY (v_due);
    SELECT array_agg(n) INTO v_lock FROM unnest(v_touched) n WHERE NOT n = ANY (p_locked);
    IF p_roll THEN
        SELECT jsonb_agg(jsonb_build_object('account', a.name, 'duration', a.duration,
            'timezone', a.timezone, 'anchor', a.anchor_ms, 'now', p_now)) INTO v_over
        FROM @schema@.accounts a LEFT JOIN @schema@.windows(p_windows) w ON w.account = a.name
            AND w.duration = a.duration AND w.timezone = a.timezone AND w.anchor = a.anchor_ms
            AND w.start <= p_now AND p_now < w."end"
        WHERE a.project = p_project AND a.name = ANY (p_names) AND a.ends_ms <= p_now AND w.account IS NULL;
    END IF;
    IF v_lock IS NOT NULL OR v_over IS NOT NULL THEN
        again := jsonb_build_object('again', true, 'lock', v_lock, 'windows', v_over);
        RETURN;
    END IF;
    IF v_due <> '{}' THEN
        expired := @schema@.expire(p_project, v_due, p_now);
    END IF;
    IF p_roll THEN
        UPDATE @schema@.accounts a SET starts_ms = w.start, ends_ms = w."end", window_no = a.window_no + 1,
            epoch_no = a.epoch_no + 1, held_nanos = 0, spent_nanos = 0, expired_nanos = 0, expiries = 0,
            models = '{}', crossed = '{}'
        FROM @schema@.windows(p_windows) w
        WHERE a.project = p_project AND a.name = ANY (p_names) AND a.ends_ms <= p_now AND w.account = a.name;
    END IF;
    UPDATE @schema@.accounts a SET next_due_ms = (
        SELECT min(c.expires_ms) FROM @schema@.charges c WHERE c.project = p_project AND c.account = a.name)
    WHERE a.project = p_project AND a.name = ANY (p_names || v_touched) AND a.next_due_ms <= p_now;
END
$$;

CREATE FUNCTION @schema@.windows(p_windows jsonb) RETURNS TABLE (
    account text, duration text, timezone text, anchor bigint, start bigint, "end" bigint
) LANGUAGE sql IMMUTABLE AS $$
    SELECT * FROM jsonb_to_recordset(p_windows) AS w(
        account text, duration text, timezone text, anchor bigint, start bigint, "end" bigint)
$$;

-- Expire holds on all of their accounts, and return their expiries.
CREATE FUNCTION @schema@.expire(p_project text, p_ids text[], p_now bigint) RETURNS jsonb
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
            SELECT t.name, t.model, least(sum(t.nanos), @max_sum@) AS nanos FROM (
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
        UPDATE @schema@.accounts a SET
            open_holds = a.open_holds - s.holds, held_nanos = a.held_nanos - s.held,
            spent_nanos = least(a.spent_nanos + s.booked, @max_sum@),
            expired_nanos = least(a.expired_nanos + s.booked, @max_sum@),
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
