-- The verbs on one account, and on a project's scopes. Each answers {again, …}, {frozen}, or what it says and
-- the holds that it found `expired`. An entry of the audit trail is added in the same transaction, once.

CREATE FUNCTION @schema@.add_entry(p_project text, p_id text, p_text text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO @schema@.entries SELECT p_project, p_id, p_text WHERE p_id IS NOT NULL ON CONFLICT DO NOTHING
$$;

CREATE FUNCTION @schema@.read(p_project text, p_name text, p_now bigint, p_needs jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint := @schema@.present_ms(p_now);
    v_row @schema@.accounts;
    v_locked text[];
    v_again jsonb;
    v_expired jsonb := '[]';
BEGIN
    SELECT * INTO v_row FROM @schema@.accounts WHERE project = p_project AND name = p_name;
    IF v_row.next_due_ms <= v_now OR v_row.ends_ms <= v_now
        OR v_row.grants IS NOT NULL AND @schema@.lapsed(v_row.grants, v_now) THEN
        v_locked := @schema@.lock_accounts(p_project, @schema@.also(p_needs) || p_name);
        IF NOT EXISTS (SELECT 1 FROM @schema@.frozen f WHERE f.project = p_project) THEN
            SELECT * INTO v_again, v_expired FROM @schema@.catch_up(
                p_project, ARRAY[p_name], v_locked, @schema@.present_ms(p_now), '', true,
                p_needs -> 'windows');
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

-- Lock an account and bring it up to the present. `answer` is what the verb answers without doing more.
CREATE FUNCTION @schema@.begin_change(
    p_project text, p_name text, p_now bigint, p_needs jsonb,
    OUT present bigint, OUT is_there boolean, OUT expired jsonb, OUT answer jsonb
) LANGUAGE plpgsql AS $$
DECLARE
    v_frozen text;
    v_locked text[];
BEGIN
    v_locked := @schema@.lock_accounts(p_project, @schema@.also(p_needs) || p_name);
    v_frozen := (SELECT f.note FROM @schema@.frozen f WHERE f.project = p_project);
    IF v_frozen IS NOT NULL THEN
        answer := jsonb_build_object('frozen', v_frozen);
        RETURN;
    END IF;
    present := @schema@.present_ms(p_now);
    is_there := p_name = ANY (v_locked);
    expired := '[]';
    IF is_there THEN
        SELECT c.again, c.expired INTO answer, expired FROM @schema@.catch_up(
            p_project, ARRAY[p_name], v_locked, present, '', true, p_needs -> 'windows') c;
    END IF;
END
$$;

CREATE FUNCTION @schema@.end_change(
    p_project text, p_name text, p_now bigint, p_expired jsonb, p_entry_id text, p_entry text
) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_row @schema@.accounts;
BEGIN
    UPDATE @schema@.accounts SET updated_ms = p_now WHERE project = p_project AND name = p_name
    RETURNING * INTO v_row;
    PERFORM @schema@.add_entry(p_project, p_entry_id, p_entry);
    RETURN jsonb_build_object('balance', @schema@.balance(v_row), 'expired', p_expired);
END
$$;

-- Make an account, or change its limit, its window and its rules, and keep its spend. The client computes the
-- window: the first call answers what it is to be computed from, the next has it in `p_needs`: {anchor,
-- fresh, start, end}, `fresh` where the window starts now. A rolling account needs none. `p_life` is a
-- random number.
CREATE FUNCTION @schema@.set_budget(
    p_project text, p_name text, p_limit bigint, p_duration text, p_timezone text, p_starts_at bigint,
    p_rolling boolean, p_rollover bigint, p_rules text, p_ephemeral boolean, p_life bigint, p_entry_id text,
    p_entry text, p_now bigint, p_needs jsonb
) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_window jsonb := p_needs -> 'window';
    v_frozen text;
    v_now bigint;
    v_instant bigint;
    v_anchor bigint;
    v_fresh boolean;
    v_row @schema@.accounts;
    v_exists boolean;
    v_rolling boolean;
    v_locked text[];
    v_again jsonb;
    v_expired jsonb := '[]';
BEGIN
    v_locked := @schema@.lock_accounts(p_project, @schema@.also(p_needs) || p_name);
    v_frozen := (SELECT f.note FROM @schema@.frozen f WHERE f.project = p_project);
    IF v_frozen IS NOT NULL THEN
        RETURN jsonb_build_object('frozen', v_frozen);
    END IF;
    SELECT * INTO v_row FROM @schema@.accounts
    WHERE project = p_project AND name = p_name AND p_name = ANY (v_locked);
    v_exists := FOUND;
    v_now := @schema@.present_ms(p_now);
    v_rolling := CASE WHEN v_exists THEN v_row.parts IS NOT NULL ELSE p_rolling END;
    v_instant := v_now;
    v_anchor := coalesce(p_starts_at, v_now);
    v_fresh := p_starts_at IS NULL;
    IF v_exists THEN
        IF v_row.ends_ms > v_now OR v_row.ends_ms IS NULL THEN
            v_instant := greatest(v_now, v_row.starts_ms);
        END IF;
        IF v_fresh AND v_row.duration IS NOT DISTINCT FROM p_duration AND v_row.timezone = p_timezone THEN
            v_anchor := v_row.anchor_ms;
            v_fresh := false;
        END IF;
    END IF;
    IF NOT v_rolling AND (v_window IS NULL OR (v_window ->> 'fresh')::boolean <> v_fresh
        OR NOT v_fresh AND (v_window ->> 'anchor')::bigint <> v_anchor
        OR (v_window ->> 'start')::bigint > v_instant OR (v_window ->> 'end')::bigint <= v_instant) THEN
        RETURN jsonb_build_object('again', true, 'anchor', v_anchor, 'fresh', v_fresh, 'instant', v_instant);
    END IF;
    IF v_exists THEN
        SELECT * INTO v_again, v_expired FROM @schema@.catch_up(
            p_project, ARRAY[p_name], v_locked, v_now, '', true, p_needs -> 'windows');
        IF v_again IS NOT NULL THEN
            RETURN v_again;
        END IF;
        IF NOT v_rolling THEN
            UPDATE @schema@.accounts SET duration = p_duration, timezone = p_timezone,
                anchor_ms = (v_window ->> 'anchor')::bigint, starts_ms = (v_window ->> 'start')::bigint,
                ends_ms = (v_window ->> 'end')::bigint
            WHERE project = p_project AND name = p_name;
        END IF;
        PERFORM @schema@.set_document(p_project, p_name, p_rules, NULL, p_life);
        UPDATE @schema@.accounts SET limit_nanos = p_limit, rollover_nanos = p_rollover
        WHERE project = p_project AND name = p_name;
    ELSE
        INSERT INTO @schema@.accounts VALUES (
            p_project, p_name, p_limit, 0, 0, 0, 0, '{}', '{}', p_duration, p_timezone,
            CASE WHEN v_rolling THEN v_anchor ELSE (v_window ->> 'anchor')::bigint END,
            CASE WHEN v_rolling THEN v_now ELSE (v_window ->> 'start')::bigint END,
            CASE WHEN NOT v_rolling THEN (v_window ->> 'end')::bigint END,
            p_life, p_life, 0, NULL, v_now, v_now, p_ephemeral, p_rollover, NULL,
            CASE WHEN v_rolling THEN '[]'::jsonb END, p_rules, '',
            CASE WHEN p_rules <> '' THEN p_life ELSE 0 END)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'another session made the account' USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;
    RETURN @schema@.end_change(p_project, p_name, v_now, v_expired, p_entry_id, p_entry);
END
$$;

-- Replace the text that is kept for clients (NULL: that stays): another text has another revision.
CREATE FUNCTION @schema@.set_document(
    p_project text, p_name text, p_rules text, p_labels text, p_revision bigint
) RETURNS void LANGUAGE sql AS $$
    UPDATE @schema@.accounts SET rules = coalesce(p_rules, rules), labels = coalesce(p_labels, labels),
        revision = CASE WHEN coalesce(p_rules, rules) = '' AND coalesce(p_labels, labels) = '' THEN 0
            ELSE p_revision END
    WHERE project = p_project AND name = p_name AND (p_rules <> rules OR p_labels <> labels)
$$;

CREATE FUNCTION @schema@.set_labels(
    p_project text, p_name text, p_labels text, p_revision bigint, p_entry_id text, p_entry text,
    p_now bigint, p_needs jsonb
) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_change record;
BEGIN
    SELECT * INTO v_change FROM @schema@.begin_change(p_project, p_name, p_now, p_needs);
    IF v_change.answer IS NOT NULL OR NOT v_change.is_there THEN
        RETURN coalesce(v_change.answer, jsonb_build_object('balance', NULL, 'expired', v_change.expired));
    END IF;
    PERFORM @schema@.set_document(p_project, p_name, NULL, p_labels, p_revision);
    RETURN @schema@.end_change(
        p_project, p_name, v_change.present, v_change.expired, p_entry_id, p_entry);
END
$$;

-- Raise an account's limit, once per grant id: until some time, or for good where `p_until` is NULL. The id of
-- what is raised for good is remembered for a while.
CREATE FUNCTION @schema@.grant(
    p_project text, p_name text, p_id text, p_amount bigint, p_until bigint, p_entry_id text, p_entry text,
    p_now bigint, p_needs jsonb
) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_change record;
BEGIN
    SELECT * INTO v_change FROM @schema@.begin_change(p_project, p_name, p_now, p_needs);
    IF v_change.answer IS NOT NULL OR NOT v_change.is_there THEN
        RETURN coalesce(v_change.answer, jsonb_build_object('balance', NULL, 'expired', v_change.expired));
    END IF;
    UPDATE @schema@.accounts SET
        limit_nanos = CASE WHEN p_until IS NULL THEN least(limit_nanos + p_amount, @max_nanos@)
            ELSE limit_nanos END,
        grants = coalesce(grants, '[]') || jsonb_build_object(
            'id', p_id, 'amount', CASE WHEN p_until IS NULL THEN 0 ELSE p_amount END,
            'until', coalesce(p_until, v_change.present + @remembered@))
    WHERE project = p_project AND name = p_name AND limit_nanos IS NOT NULL
        AND coalesce(p_until > v_change.present, true)
        AND NOT coalesce(grants @> jsonb_build_array(jsonb_build_object('id', p_id)), false);
    RETURN @schema@.end_change(
        p_project, p_name, v_change.present, v_change.expired, p_entry_id, p_entry);
END
$$;

-- Note something about an account's present window: {marked, expired}, `marked` if it was not noted before.
CREATE FUNCTION @schema@.mark(p_project text, p_name text, p_mark bigint, p_now bigint, p_needs jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_change record;
BEGIN
    SELECT * INTO v_change FROM @schema@.begin_change(p_project, p_name, p_now, p_needs);
    IF v_change.answer IS NOT NULL THEN
        RETURN v_change.answer;
    END IF;
    UPDATE @schema@.accounts SET crossed = crossed || p_mark
    WHERE v_change.is_there AND project = p_project AND name = p_name AND NOT p_mark = ANY (crossed);
    RETURN jsonb_build_object('marked', FOUND, 'expired', v_change.expired);
END
$$;

CREATE OR REPLACE FUNCTION @schema@.clear(p_project text, p_name text) RETURNS void LANGUAGE sql AS $$
    UPDATE @schema@.accounts SET epoch_no = epoch_no + 1, spent_nanos = 0, expired_nanos = 0, expiries = 0,
        models = '{}', crossed = '{}', parts = CASE WHEN parts IS NOT NULL THEN '[]'::jsonb END,
        ends_ms = CASE WHEN parts IS NULL THEN ends_ms END
    WHERE project = p_project AND name = p_name
$$;

-- Set what an account has spent to nothing; holds under way stay held.
CREATE FUNCTION @schema@.reset(
    p_project text, p_name text, p_entry_id text, p_entry text, p_now bigint, p_needs jsonb
) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_change record;
BEGIN
    SELECT * INTO v_change FROM @schema@.begin_change(p_project, p_name, p_now, p_needs);
    IF v_change.answer IS NOT NULL OR NOT v_change.is_there THEN
        RETURN coalesce(v_change.answer, jsonb_build_object('balance', NULL, 'expired', v_change.expired));
    END IF;
    PERFORM @schema@.clear(p_project, p_name);
    RETURN @schema@.end_change(
        p_project, p_name, v_change.present, v_change.expired, p_entry_id, p_entry);
END
$$;

-- Delete an account: {existed, expired}. Its open holds stay with their other accounts, or are nobody's.
CREATE FUNCTION @schema@.delete(
    p_project text, p_name text, p_entry_id text, p_entry text, p_now bigint, p_needs jsonb
) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_change record;
BEGIN
    SELECT * INTO v_change FROM @schema@.begin_change(p_project, p_name, p_now, p_needs);
    IF v_change.answer IS NOT NULL OR NOT v_change.is_there THEN
        RETURN coalesce(v_change.answer, jsonb_build_object('existed', false, 'expired', v_change.expired));
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
    PERFORM @schema@.add_entry(p_project, p_entry_id, p_entry);
    RETURN jsonb_build_object('existed', true, 'expired', v_change.expired);
END
$$;

-- Replace the project's scopes if they are of the revision that was seen: {saved}. A `reserve` that has read
-- the former ones holds a lock on the table of accounts; one that begins waits for this one, and then reads.
CREATE FUNCTION @schema@.save_scopes(
    p_project text, p_revision bigint, p_rules text, p_seen bigint, p_entry_id text, p_entry text
) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_frozen text;
BEGIN
    LOCK TABLE @schema@.accounts IN EXCLUSIVE MODE;
    v_frozen := (SELECT f.note FROM @schema@.frozen f WHERE f.project = p_project);
    IF v_frozen IS NOT NULL THEN
        RETURN jsonb_build_object('frozen', v_frozen);
    END IF;
    IF coalesce((SELECT s.revision FROM @schema@.scopes s WHERE s.project = p_project), 0) <> p_seen THEN
        RETURN jsonb_build_object('saved', false);
    END IF;
    INSERT INTO @schema@.scopes VALUES (p_project, p_revision, p_rules)
    ON CONFLICT (project) DO UPDATE SET revision = excluded.revision, rules = excluded.rules;
    PERFORM @schema@.add_entry(p_project, p_entry_id, p_entry);
    RETURN jsonb_build_object('saved', true);
END
$$;
