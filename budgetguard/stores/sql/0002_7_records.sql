-- The verbs on holds, and pages: as in version 1, of what there is now.

CREATE OR REPLACE FUNCTION @schema@.record(h @schema@.holds) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'id', h.id, 'state', h.state, 'accounts', h.accounts, 'amount_nanos', h.amount_nanos,
        'on_expiry_nanos', h.on_expiry_nanos, 'cost_nanos', h.cost_nanos, 'created_ms', h.created_ms,
        'expires_ms', h.expires_ms, 'ended_ms', h.ended_ms, 'user', h."user", 'model', h.model,
        'endpoint', h.endpoint, 'outcome', h.outcome, 'request_id', h.request_id, 'usage', h.usage,
        'tags', h.tags, 'units', h.units, 'labels', h.labels, 'shadowed', h.shadowed)
$$;

-- A hold as it stands now: {record, expired} or {again, …}.
CREATE FUNCTION @schema@.present(p_project text, p_id text, p_now bigint, p_needs jsonb)
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
        v_locked := @schema@.lock_accounts(p_project, @schema@.also(p_needs) || v_hold.accounts);
        v_frozen := EXISTS (SELECT 1 FROM @schema@.frozen f WHERE f.project = p_project);
        IF NOT v_frozen THEN
            SELECT * INTO v_again, v_expired FROM @schema@.catch_up(
                p_project, v_hold.accounts, v_locked, v_now, '', true, p_needs -> 'windows');
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

CREATE FUNCTION @schema@.attached(p_project text, p_answer bytea, p_now bigint, p_needs jsonb)
RETURNS jsonb LANGUAGE sql AS $$
    SELECT @schema@.present(p_project, a.hold_id, p_now, p_needs)
    FROM @schema@.answers a WHERE a.project = p_project AND a.answer = p_answer
$$;

-- Accounts with p_start <= name < p_end (no end if NULL), or of them those with open holds.
CREATE FUNCTION @schema@.page_of_accounts(
    p_project text, p_start text, p_end text, p_open boolean, p_now bigint, p_most bigint
) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint := @schema@.present_ms(p_now);
    v_frozen boolean := EXISTS (SELECT 1 FROM @schema@.frozen f WHERE f.project = p_project);
BEGIN
    RETURN (
        SELECT jsonb_agg(jsonb_build_object(
            'value', @schema@.balance(a), 'key', a.name,
            'due', NOT v_frozen AND (coalesce(a.next_due_ms <= v_now, false)
                OR coalesce(a.ends_ms <= v_now, false)
                OR CASE WHEN a.grants IS NOT NULL THEN @schema@.lapsed(a.grants, v_now) ELSE false END))
            ORDER BY a.name)
        FROM (
            SELECT * FROM @schema@.accounts o
            WHERE o.project = p_project AND o.name >= p_start AND o.name < coalesce(p_end, chr(1114111))
                AND (o.open_holds > 0 OR NOT p_open)
            ORDER BY o.name LIMIT p_most
        ) a);
END
$$;

-- Holds with p_start <= id < p_end (no end if NULL).
CREATE FUNCTION @schema@.page_of_holds(p_project text, p_start text, p_end text, p_now bigint, p_most bigint)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint := @schema@.present_ms(p_now);
    v_frozen boolean := EXISTS (SELECT 1 FROM @schema@.frozen f WHERE f.project = p_project);
BEGIN
    RETURN (
        SELECT jsonb_agg(jsonb_build_object(
            'value', @schema@.record(h), 'key', h.id,
            'due', NOT v_frozen AND h.state = 'held' AND h.expires_ms <= v_now)
            ORDER BY h.id)
        FROM (
            SELECT * FROM @schema@.holds o
            WHERE o.project = p_project AND o.id >= p_start AND o.id < coalesce(p_end, chr(1114111))
            ORDER BY o.id LIMIT p_most
        ) h);
END
$$;

-- The open holds of an account after one that expires at `p_expires`, in order of expiry.
CREATE FUNCTION @schema@.page_of_open(
    p_project text, p_account text, p_expires bigint, p_id text, p_most bigint
) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_agg(@schema@.record(h) ORDER BY h.expires_ms, h.id)
    FROM (
        SELECT * FROM @schema@.charges o
        WHERE o.project = p_project AND o.account = p_account
            AND (o.expires_ms, o.hold_id) > (p_expires, p_id)
        ORDER BY o.expires_ms, o.hold_id LIMIT p_most
    ) c JOIN @schema@.holds h ON h.project = c.project AND h.id = c.hold_id
$$;

-- The entries of the audit trail after one, or from `p_since` on.
CREATE FUNCTION @schema@.page_of_entries(p_project text, p_since text, p_after text, p_most bigint)
RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_agg(jsonb_build_object('id', e.id, 'text', e.text) ORDER BY e.id)
    FROM (
        SELECT * FROM @schema@.entries o
        WHERE o.project = p_project AND o.id >= p_since AND o.id > p_after ORDER BY o.id LIMIT p_most
    ) e
$$;
