-- The verbs on one account. Each answers {again, …}, or {balance or existed, expired}.

CREATE FUNCTION @schema@.read(p_project text, p_name text, p_now bigint, p_also text[], p_windows jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint := @schema@.present_ms(p_now);
    v_row @schema@.accounts;
    v_locked text[];
    v_again jsonb;
    v_expired jsonb := '[]';
BEGIN
    SELECT * INTO v_row FROM @schema@.accounts WHERE project = p_project AND name = p_name;
    IF v_row.next_due_ms <= v_now OR v_row.ends_ms <= v_now THEN
        v_locked := @schema@.lock_accounts(p_project, p_also || p_name);
        IF NOT EXISTS (SELECT 1 FROM @schema@.frozen f WHERE f.project = p_project) THEN
            SELECT * INTO v_again, v_expired FROM @schema@.catch_up(
                p_project, ARRAY[p_name], v_locked, @schema@.present_ms(p_now), '', true, p_windows);
        END IF;
        IF v_again IS NOT NULL THEN
            RETURN v_again;
        END IF;
        SELECT * INTO v_row FROM @schema@.accounts WHERE project = p_project AND name = p_name;
    END IF;
    RETURN jsonb_build_object(
        'balance', CASE WHEN v_row.name IS NOT NULL THEN @schema@.balance(v_row) END, 'expired', v_expired);
END
$$;

-- Make an account, or change its limit and window and keep its spend. The client computes the window: the
-- first call answers what it is to be computed from, the next has it in `p_window`: {anchor, fresh, start,
-- end}, `fresh` where the window starts now.
CREATE FUNCTION @schema@.set_budget(
    p_project text, p_name text, p_limit bigint, p_duration text, p_timezone text, p_starts_at bigint,
    p_ephemeral boolean, p_life bigint, p_now bigint, p_also text[], p_window jsonb
) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_frozen text;
    v_now bigint;
    v_instant bigint;
    v_anchor bigint;
    v_fresh boolean;
    v_row @schema@.accounts;
    v_exists boolean;
    v_rolls boolean := false;
    v_locked text[];
    v_again jsonb;
    v_expired jsonb := '[]';
BEGIN
    v_locked := @schema@.lock_accounts(p_project, p_also || p_name);
    v_frozen := (SELECT f.note FROM @schema@.frozen f WHERE f.project = p_project);
    IF v_frozen IS NOT NULL THEN
        RETURN jsonb_build_object('frozen', v_frozen);
    END IF;
    SELECT * INTO v_row FROM @schema@.accounts
    WHERE project = p_project AND name = p_name AND p_name = ANY (v_locked);
    v_exists := FOUND;
    v_now := @schema@.present_ms(p_now);
    v_instant := v_now;
    v_anchor := coalesce(p_starts_at, v_now);
    v_fresh := p_starts_at IS NULL;
    IF v_exists THEN
        v_rolls := coalesce(v_row.ends_ms <= v_now, false);
        IF NOT v_rolls THEN
            v_instant := greatest(v_now, v_row.starts_ms);
        END IF;
        IF v_fresh AND v_row.duration IS NOT DISTINCT FROM p_duration AND v_row.timezone = p_timezone THEN
            v_anchor := v_row.anchor_ms;
            v_fresh := false;
        END IF;
    END IF;
    IF p_window IS NULL OR (p_window ->> 'fresh')::boolean <> v_fresh
        OR NOT v_fresh AND (p_window ->> 'anchor')::bigint <> v_anchor
        OR (p_window ->> 'start')::bigint > v_instant OR (p_window ->> 'end')::bigint <= v_instant THEN
        RETURN jsonb_build_object('again', true, 'anchor', v_anchor, 'fresh', v_fresh, 'instant', v_instant);
    END IF;
    IF v_exists THEN
        SELECT * INTO v_again, v_expired FROM @schema@.catch_up(
            p_project, ARRAY[p_name], v_locked, v_now, '', false, NULL);
        IF v_again IS NOT NULL THEN
            RETURN v_again;
        END IF;
        IF v_rolls THEN
            PERFORM @schema@.clear(p_project, p_name);
            UPDATE @schema@.accounts SET window_no = window_no + 1, held_nanos = 0
            WHERE project = p_project AND name = p_name;
        END IF;
        UPDATE @schema@.accounts SET limit_nanos = p_limit, duration = p_duration, timezone = p_timezone,
            anchor_ms = (p_window ->> 'anchor')::bigint, starts_ms = (p_window ->> 'start')::bigint,
            ends_ms = (p_window ->> 'end')::bigint, updated_ms = v_now
        WHERE project = p_project AND name = p_name RETURNING * INTO v_row;
    ELSE
        INSERT INTO @schema@.accounts VALUES (
            p_project, p_name, p_limit, 0, 0, 0, 0, '{}', '{}', p_duration, p_timezone,
            (p_window ->> 'anchor')::bigint, (p_window ->> 'start')::bigint, (p_window ->> 'end')::bigint,
            p_life, p_life, 0, NULL, v_now, v_now, p_ephemeral)
        ON CONFLICT DO NOTHING RETURNING * INTO v_row;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'another session made the account' USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;
    RETURN jsonb_build_object('balance', @schema@.balance(v_row), 'expired', v_expired);
END
$$;

CREATE FUNCTION @schema@.clear(p_project text, p_name text) RETURNS void LANGUAGE sql AS $$
    UPDATE @schema@.accounts SET epoch_no = epoch_no + 1, spent_nanos = 0, expired_nanos = 0, expiries = 0,
        models = '{}', crossed = '{}'
    WHERE project = p_project AND name = p_name
$$;

-- Set what an account has spent to nothing; holds under way stay held.
CREATE FUNCTION @schema@.reset(p_project text, p_name text, p_now bigint, p_also text[], p_windows jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_frozen text;
    v_now bigint;
    v_row @schema@.accounts;
    v_locked text[];
    v_again jsonb;
    v_expired jsonb := '[]';
BEGIN
    v_locked := @schema@.lock_accounts(p_project, p_also || p_name);
    v_frozen := (SELECT f.note FROM @schema@.frozen f WHERE f.project = p_project);
    IF v_frozen IS NOT NULL THEN
        RETURN jsonb_build_object('frozen', v_frozen);
    END IF;
    IF NOT p_name = ANY (v_locked) THEN
        RETURN jsonb_build_object('balance', NULL, 'expired', v_expired);
    END IF;
    v_now := @schema@.present_ms(p_now);
    SELECT * INTO v_again, v_expired FROM @schema@.catch_up(
        p_project, ARRAY[p_name], v_locked, v_now, '', true, p_windows);
    IF v_again IS NOT NULL THEN
        RETURN v_again;
    END IF;
    PERFORM @schema@.clear(p_project, p_name);
    UPDATE @schema@.accounts SET updated_ms = v_now WHERE project = p_project AND name = p_name
    RETURNING * INTO v_row;
    RETURN jsonb_build_object('balance', @schema@.balance(v_row), 'expired', v_expired);
END
$$;

-- Delete an account. Its open holds stay with their other accounts, or are charged to nobody.
CREATE FUNCTION @schema@.delete(p_project text, p_name text, p_now bigint, p_also text[]) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_frozen text;
    v_locked text[];
    v_again jsonb;
    v_expired jsonb := '[]';
BEGIN
    v_locked := @schema@.lock_accounts(p_project, p_also || p_name);
    v_frozen := (SELECT f.note FROM @schema@.frozen f WHERE f.project = p_project);
    IF v_frozen IS NOT NULL THEN
        RETURN jsonb_build_object('frozen', v_frozen);
    END IF;
    IF NOT p_name = ANY (v_locked) THEN
        RETURN jsonb_build_object('existed', false, 'expired', v_expired);
    END IF;
    SELECT * INTO v_again, v_expired FROM @schema@.catch_up(
        p_project, ARRAY[p_name], v_locked, @schema@.present_ms(p_now), '', false, NULL);
    IF v_again IS NOT NULL THEN
        RETURN v_again;
    END IF;
    WITH closed AS (
        DELETE FROM @schema@.charges WHERE project = p_project AND account = p_name RETURNING hold_id
    )
    UPDATE @schema@.holds h SET
        accounts = array_remove(h.accounts, p_name),
        windows = h.windows[: array_position(h.accounts, p_name) - 1]
            || h.windows[array_position(h.accounts, p_name) + 1 :]
    FROM closed c WHERE h.project = p_project AND h.id = c.hold_id;
    DELETE FROM @schema@.accounts WHERE project = p_project AND name = p_name;
    RETURN jsonb_build_object('existed', true, 'expired', v_expired);
END
$$;
