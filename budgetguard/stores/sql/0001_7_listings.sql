-- Pages: at most `p_most` rows, as an array of {value, due, key} in order of their keys. `due` means that
-- time has changed a row since it was stored. The client goes on after the last key.

-- Accounts with p_start <= name < p_end (no end if NULL), or of them those with open holds.
CREATE FUNCTION @schema@.accounts_page(
    p_project text, p_start text, p_end text, p_open boolean, p_now bigint, p_most bigint
) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint := @schema@.present_ms(p_now);
    v_frozen boolean := EXISTS (SELECT 1 FROM @schema@.frozen f WHERE f.project = p_project);
BEGIN
    RETURN (
        SELECT jsonb_agg(jsonb_build_object(
            'value', @schema@.balance(a), 'key', a.name,
            'due', NOT v_frozen
                AND (coalesce(a.next_due_ms <= v_now, false) OR coalesce(a.ends_ms <= v_now, false)))
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
CREATE FUNCTION @schema@.holds_page(p_project text, p_start text, p_end text, p_now bigint, p_most bigint)
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
CREATE FUNCTION @schema@.open_page(
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

-- The projects that have an account, or this one, by name. From one project to the next by the index, so that
-- not every account is read.
CREATE FUNCTION @schema@.projects(p_project text, p_account text) RETURNS jsonb LANGUAGE sql STABLE AS $$
    WITH RECURSIVE found AS (
        (SELECT a.project FROM @schema@.accounts a ORDER BY a.project LIMIT 1)
        UNION ALL
        SELECT (
            SELECT a.project FROM @schema@.accounts a WHERE a.project > f.project ORDER BY a.project LIMIT 1
        ) FROM found f WHERE f.project IS NOT NULL
    )
    SELECT coalesce(jsonb_agg(f.project ORDER BY f.project), '[]') FROM found f
    WHERE f.project IS NOT NULL AND (p_account IS NULL OR EXISTS (
        SELECT FROM @schema@.accounts a WHERE a.project = f.project AND a.name = p_account
    ))
$$;

-- What has been observed of a model, bucket -> answers, all shards together.
CREATE FUNCTION @schema@.observed(p_project text, p_model bytea) RETURNS jsonb LANGUAGE sql AS $$
    SELECT coalesce(jsonb_object_agg(s.key, s.answers), '{}') FROM (
        SELECT c.key, sum(c.value::bigint) AS answers
        FROM @schema@.observations o, jsonb_each_text(o.counts) c
        WHERE o.project = p_project AND o.model = p_model GROUP BY c.key
    ) s
$$;
