-- The verbs on holds, and the removal of old records.

CREATE FUNCTION @schema@.record(h @schema@.holds) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'id', h.id, 'state', h.state, 'accounts', h.accounts, 'amount_nanos', h.amount_nanos,
        'on_expiry_nanos', h.on_expiry_nanos, 'cost_nanos', h.cost_nanos, 'created_ms', h.created_ms,
        'expires_ms', h.expires_ms, 'ended_ms', h.ended_ms, 'user', h."user", 'model', h.model,
        'endpoint', h.endpoint, 'outcome', h.outcome, 'request_id', h.request_id, 'usage', h.usage,
        'tags', h.tags)
$$;

-- A hold as it stands now: {record, expired} or {again, …}.
CREATE FUNCTION @schema@.present(p_project text, p_id text, p_now bigint, p_also text[], p_windows jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint := @schema@.present_ms(p_now);
    v_frozen boolean;
    v_hold @schema@.holds;
    v_locked text[];
    v_again jsonb;
    v_expired jsonb := '[]';
BEGIN
    SELECT * INTO v_hold FROM @schema@.holds WHERE project = p_project AND id = p_id;
    IF v_hold.state = 'held' AND v_hold.expires_ms <= v_now THEN
        v_locked := @schema@.lock_accounts(p_project, p_also || v_hold.accounts);
        v_frozen := EXISTS (SELECT 1 FROM @schema@.frozen f WHERE f.project = p_project);
        IF NOT v_frozen THEN
            SELECT * INTO v_again, v_expired FROM @schema@.catch_up(
                p_project, v_hold.accounts, v_locked, v_now, '', true, p_windows);
        END IF;
        IF v_again IS NOT NULL THEN
            RETURN v_again;
        END IF;
        SELECT * INTO v_hold FROM @schema@.holds WHERE project = p_project AND id = p_id FOR UPDATE;
        -- No account is left that would have ended it.
        IF v_hold.state = 'held' AND v_hold.accounts = '{}' AND NOT v_frozen THEN
            v_expired := v_expired || @schema@.expire(p_project, ARRAY[p_id], v_now);
            SELECT * INTO v_hold FROM @schema@.holds WHERE project = p_project AND id = p_id;
        END IF;
    END IF;
    RETURN jsonb_build_object(
        'record', CASE WHEN v_hold.id IS NOT NULL THEN @schema@.record(v_hold) END, 'expired', v_expired);
END
$$;

CREATE FUNCTION @schema@.attached(
    p_project text, p_answer bytea, p_now bigint, p_also text[], p_windows jsonb
) RETURNS jsonb LANGUAGE sql AS $$
    SELECT @schema@.present(p_project, a.hold_id, p_now, p_also, p_windows)
    FROM @schema@.answers a WHERE a.project = p_project AND a.answer = p_answer
$$;

CREATE FUNCTION @schema@.attach(p_project text, p_id text, p_answer bytea, p_request_id text)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_frozen text;
BEGIN
    PERFORM 1 FROM @schema@.holds WHERE project = p_project AND id = p_id FOR UPDATE;
    v_frozen := (SELECT f.note FROM @schema@.frozen f WHERE f.project = p_project);
    IF v_frozen IS NOT NULL THEN
        RETURN jsonb_build_object('frozen', v_frozen);
    END IF;
    UPDATE @schema@.holds SET request_id = p_request_id
    WHERE project = p_project AND id = p_id AND state NOT IN ('settled', 'voided');
    IF NOT FOUND THEN
        RETURN to_jsonb(false);
    END IF;
    INSERT INTO @schema@.answers VALUES (p_project, p_answer, p_id, p_request_id)
    ON CONFLICT (project, answer) DO UPDATE SET hold_id = excluded.hold_id;
    RETURN to_jsonb(true);
END
$$;

-- Remove records of calls that ended before the retention (milliseconds), with their answers, and idle
-- ephemeral accounts: at most `p_most` of each, and none that another session has locked.
CREATE FUNCTION @schema@.sweep(p_project text, p_now bigint, p_retention bigint, p_most bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_before bigint := greatest(@schema@.present_ms(p_now) - p_retention, 0);
BEGIN
    IF EXISTS (SELECT 1 FROM @schema@.frozen f WHERE f.project = p_project) THEN
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
