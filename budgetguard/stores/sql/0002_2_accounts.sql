-- What the verbs are made of, where it is otherwise than in version 1. What a verb needs beyond its arguments
-- is in `p_needs`, as its answers asked for it: {lock, windows, making, window}, or NULL.

-- What an account counts, which its name says (`accounts.unit_of`).
CREATE FUNCTION @schema@.unit_of(p_name text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN starts_with(p_name, 'labels:@unit=') THEN split_part(substr(p_name, 14), '&', 1)
        ELSE 'usd' END
$$;

CREATE FUNCTION @schema@.also(p_needs jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT array(SELECT jsonb_array_elements_text(p_needs -> 'lock'))
$$;

-- Whether a raise has ended.
CREATE FUNCTION @schema@.lapsed(p_grants jsonb, p_now bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT EXISTS (SELECT FROM jsonb_array_elements(p_grants) g WHERE (g ->> 'until')::bigint <= p_now)
$$;

-- What may be spent now: the budget's limit and the raises in force.
CREATE FUNCTION @schema@.limit_of(a @schema@.accounts) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN a.limit_nanos IS NULL OR a.grants IS NULL THEN a.limit_nanos
        ELSE (
            SELECT least(a.limit_nanos + sum((g ->> 'amount')::numeric), @max_sum@)::bigint
            FROM jsonb_array_elements(a.grants) g) END
$$;

CREATE FUNCTION @schema@.document(a @schema@.accounts) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('revision', a.revision, 'rules', a.rules, 'labels', a.labels)
$$;

CREATE OR REPLACE FUNCTION @schema@.balance(a @schema@.accounts) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'account', a.name, 'limit_nanos', @schema@.limit_of(a), 'spent_nanos', a.spent_nanos,
        'held_nanos', a.held_nanos, 'duration', a.duration, 'timezone', a.timezone,
        'starts_ms', a.starts_ms, 'resets_ms', a.ends_ms, 'created_ms', a.created_ms,
        'updated_ms', a.updated_ms, 'models', a.models, 'expired_nanos', a.expired_nanos,
        'expiries', a.expiries, 'open_holds', a.open_holds, 'grants', a.grants,
        'rolling', a.parts IS NOT NULL, 'rollover_nanos', a.rollover_nanos,
        'frees', CASE WHEN a.parts IS NOT NULL THEN (
            SELECT jsonb_agg(jsonb_build_array(p.part -> 'until', p.part -> 'spent') ORDER BY p.place)
            FROM jsonb_array_elements(a.parts) WITH ORDINALITY p(part, place)
            WHERE p.part -> 'spent' <> '0') END,
        'document', CASE WHEN a.revision <> 0 THEN @schema@.document(a) END)
$$;

-- Lock accounts, and make those that are missing and that `p_making` describes.
CREATE FUNCTION @schema@.make_accounts(
    p_project text, p_names text[], p_making jsonb, OUT locked text[], OUT made text[]
) LANGUAGE plpgsql AS $$
DECLARE
    v_name text;
    v_new jsonb;
    v_now bigint;
    v_life bigint;
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
        v_life := (v_new ->> 'life')::bigint;
        INSERT INTO @schema@.accounts VALUES (
            p_project, v_name, (v_new ->> 'limit')::bigint, 0, 0, 0, 0, '{}', '{}', v_new ->> 'duration',
            v_new ->> 'timezone', (v_new ->> 'anchor')::bigint, (v_new ->> 'start')::bigint,
            (v_new ->> 'end')::bigint, v_life, v_life, 0, NULL, v_now, v_now,
            (v_new ->> 'ephemeral')::boolean, (v_new ->> 'rollover')::bigint, NULL,
            CASE WHEN (v_new ->> 'rolling')::boolean THEN '[]'::jsonb END, v_new ->> 'rules', '',
            CASE WHEN v_new ->> 'rules' <> '' THEN v_life ELSE 0 END)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'another session made the account' USING ERRCODE = 'serialization_failure';
        END IF;
        locked := locked || v_name;
        made := made || v_name;
    END LOOP;
END
$$;

-- The accounts that the charges of a hold come down to: those that exist, and those that it makes.
-- `p_found` are the locked accounts, `p_current` the revisions of their rules and labels, `p_made` those of
-- them that this verb made: they count from the charge that has a budget for them. `p_revisions` are those
-- by which the call was judged, NULL where that does not matter. Flags: 1 required, 2 has a budget.
CREATE FUNCTION @schema@.charged(
    p_names text[], p_flags bigint[], p_revisions bigint[], p_found text[], p_current bigint[], p_made text[],
    OUT taken text[], OUT missing text[], OUT unknown text, OUT outdated text[]
) LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_name text;
    v_place integer;
    v_existed boolean;
BEGIN
    taken := '{}';
    missing := '{}';
    outdated := '{}';
    FOR i IN 1 .. cardinality(p_names) LOOP
        v_name := p_names[i];
        CONTINUE WHEN v_name = ANY (taken);
        v_place := array_position(p_found, v_name);
        v_existed := v_place IS NOT NULL AND NOT v_name = ANY (p_made);
        IF p_revisions[i] <> (CASE WHEN v_existed THEN p_current[v_place] ELSE 0 END) THEN
            outdated := outdated || v_name;
        END IF;
        IF v_existed OR p_flags[i] & 2 <> 0 THEN
            taken := taken || v_name;
            IF v_place IS NULL THEN
                missing := missing || v_name;
            END IF;
        ELSIF p_flags[i] & 1 <> 0 THEN
            unknown := v_name;
            RETURN;
        END IF;
    END LOOP;
END
$$;

-- `ended` is when the window ended that was stored, `skipped` how many there were between it and this one.
CREATE FUNCTION @schema@.windows(p_windows jsonb) RETURNS TABLE (
    account text, duration text, timezone text, anchor bigint, ended bigint, start bigint, "end" bigint,
    skipped bigint
) LANGUAGE sql IMMUTABLE AS $$
    SELECT * FROM jsonb_to_recordset(p_windows) AS w(
        account text, duration text, timezone text, anchor bigint, ended bigint, start bigint, "end" bigint,
        skipped bigint)
$$;

-- The grants of the next window: what was left of the budget in the last, and in windows skipped since, is
-- one of them (`booking.next_window`).
CREATE FUNCTION @schema@.roll_over(a @schema@.accounts, p_skipped bigint, p_end bigint) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_unused numeric;
    v_kept jsonb;
BEGIN
    IF a.rollover_nanos = 0 OR a.limit_nanos IS NULL THEN
        RETURN a.grants;
    END IF;
    -- One that was granted for a window that the budget had before may have ended long ago.
    SELECT coalesce(sum((g ->> 'amount')::numeric), 0) INTO v_unused FROM jsonb_array_elements(a.grants) g
    WHERE g ->> 'id' = 'rollover' AND (g ->> 'until')::bigint >= a.ends_ms;
    v_unused := greatest(0, v_unused + a.limit_nanos - a.spent_nanos - a.held_nanos);
    v_unused := least(v_unused + p_skipped::numeric * a.limit_nanos, a.rollover_nanos);
    SELECT coalesce(jsonb_agg(g.value ORDER BY g.place), '[]') INTO v_kept
    FROM jsonb_array_elements(a.grants) WITH ORDINALITY g(value, place) WHERE g.value ->> 'id' <> 'rollover';
    IF v_unused <> 0 THEN
        v_kept := v_kept || jsonb_build_object('id', 'rollover', 'amount', v_unused, 'until', p_end);
    END IF;
    RETURN nullif(v_kept, '[]');
END
$$;

-- As in version 1; of a rolling account, the parts that are over fall out.
CREATE OR REPLACE FUNCTION @schema@.catch_up(
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
            'timezone', a.timezone, 'anchor', a.anchor_ms, 'ended', a.ends_ms, 'now', p_now)) INTO v_over
        FROM @schema@.accounts a LEFT JOIN @schema@.windows(p_windows) w ON w.account = a.name
            AND w.duration = a.duration AND w.timezone = a.timezone AND w.anchor = a.anchor_ms
            AND w.ended = a.ends_ms AND w.start <= p_now AND p_now < w."end"
        WHERE a.project = p_project AND a.name = ANY (p_names) AND a.ends_ms <= p_now AND a.parts IS NULL
            AND w.account IS NULL;
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
            models = '{}', crossed = '{}', grants = @schema@.roll_over(a, w.skipped, w."end")
        FROM @schema@.windows(p_windows) w
        WHERE a.project = p_project AND a.name = ANY (p_names) AND a.ends_ms <= p_now AND a.parts IS NULL
            AND w.account = a.name;
        UPDATE @schema@.accounts a SET grants = (
            SELECT jsonb_agg(g.value ORDER BY g.place)
            FROM jsonb_array_elements(a.grants) WITH ORDINALITY g(value, place)
            WHERE (g.value ->> 'until')::bigint > p_now)
        WHERE a.project = p_project AND a.name = ANY (p_names) AND a.grants IS NOT NULL
            AND @schema@.lapsed(a.grants, p_now);
        UPDATE @schema@.accounts a
        SET (parts, ends_ms, spent_nanos, expired_nanos, expiries, models, crossed) = (
            SELECT d.parts, d.ends_ms, d.spent_nanos, d.expired_nanos, d.expiries, d.models, d.crossed
            FROM @schema@.drop_parts(a, p_now) d)
        WHERE a.project = p_project AND a.name = ANY (p_names) AND a.ends_ms <= p_now
            AND a.parts IS NOT NULL;
    END IF;
    UPDATE @schema@.accounts a SET next_due_ms = (
        SELECT min(c.expires_ms) FROM @schema@.charges c WHERE c.project = p_project AND c.account = a.name)
    WHERE a.project = p_project AND a.name = ANY (p_names || v_touched) AND a.next_due_ms <= p_now;
END
$$;

-- Expire holds on all of their accounts, and return their expiries.
CREATE OR REPLACE FUNCTION @schema@.expire(p_project text, p_ids text[], p_now bigint) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_rolling text[];
    v_told jsonb;
BEGIN
    v_rolling := array(
        SELECT DISTINCT a.name
        FROM @schema@.holds h, unnest(h.accounts, h.windows) c(account, window_no), @schema@.accounts a
        WHERE h.project = p_project AND h.id = ANY (p_ids) AND a.project = p_project AND a.name = c.account
            AND a.window_no = c.window_no AND a.parts IS NOT NULL);
    IF v_rolling <> '{}' THEN
        UPDATE @schema@.accounts a SET (epoch_no, parts, ends_ms) = (
            SELECT b.epoch_no, b.parts, b.ends_ms FROM @schema@.begin_part(a, p_now) b)
        WHERE a.project = p_project AND a.name = ANY (v_rolling);
        PERFORM @schema@.book_expiry(p_project, c.account, h.model,
            CASE WHEN starts_with(c.account, 'labels:@unit=')
                THEN coalesce((h.units -> @schema@.unit_of(c.account) ->> 1)::bigint, 0)
                ELSE h.on_expiry_nanos END)
        FROM @schema@.holds h, unnest(h.accounts, h.windows) c(account, window_no), @schema@.accounts a
        WHERE h.project = p_project AND h.id = ANY (p_ids) AND a.project = p_project AND a.name = c.account
            AND a.window_no = c.window_no AND a.name = ANY (v_rolling);
    END IF;
    WITH ended AS (
        UPDATE @schema@.holds h SET state = 'expired', outcome = 'unknown', cost_nanos = h.on_expiry_nanos,
            ended_ms = p_now,
            units = (
                SELECT jsonb_object_agg(
                    u.key, jsonb_build_array(u.value -> 0, u.value -> 1, u.value -> 1))
                FROM jsonb_each(h.units) u),
            epochs = (
                SELECT array_agg(CASE WHEN a.window_no = c.window_no THEN a.epoch_no END ORDER BY c.place)
                FROM unnest(h.accounts, h.windows) WITH ORDINALITY c(account, window_no, place)
                LEFT JOIN @schema@.accounts a ON a.project = p_project AND a.name = c.account)
        WHERE h.project = p_project AND h.id = ANY (p_ids)
        RETURNING h.*
    ), shares AS (
        SELECT a.name, e.model, a.window_no = c.window_no AS counts,
            CASE WHEN starts_with(a.name, 'labels:@unit=')
                THEN coalesce((e.units -> @schema@.unit_of(a.name) ->> 0)::bigint, 0)
                ELSE e.amount_nanos END AS amount,
            CASE WHEN starts_with(a.name, 'labels:@unit=')
                THEN coalesce((e.units -> @schema@.unit_of(a.name) ->> 1)::bigint, 0)
                ELSE e.on_expiry_nanos END AS on_expiry
        FROM ended e, unnest(e.accounts, e.windows) c(account, window_no), @schema@.accounts a
        WHERE a.project = p_project AND a.name = c.account
    ), models AS (
        SELECT s.name, jsonb_object_agg(s.model, s.nanos) AS nanos FROM (
            SELECT t.name, t.model, least(sum(t.nanos), @max_sum@) AS nanos FROM (
                SELECT s.name, s.model, s.on_expiry AS nanos FROM shares s WHERE s.counts
                UNION ALL
                SELECT a.name, m.key, m.value::bigint FROM @schema@.accounts a, jsonb_each_text(a.models) m
                WHERE a.project = p_project AND a.name IN (SELECT s.name FROM shares s)
            ) t GROUP BY t.name, t.model HAVING sum(t.nanos) <> 0
        ) s GROUP BY s.name
    ), sums AS (
        SELECT s.name, count(*) AS holds, count(*) FILTER (WHERE s.counts) AS expiries,
            coalesce(sum(s.amount) FILTER (WHERE s.counts), 0) AS held,
            coalesce(sum(s.on_expiry) FILTER (WHERE s.counts), 0) AS booked
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
