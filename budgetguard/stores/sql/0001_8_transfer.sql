-- Rows whole, for other stores and from them. Pages of at most `p_most`, in order of their keys, after
-- `p_after`.

CREATE FUNCTION @schema@.instant(p_project text, p_now bigint) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
    SELECT to_jsonb(@schema@.present_ms(p_now))
$$;

CREATE FUNCTION @schema@.frozen_note(p_project text) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT to_jsonb(f.note) FROM @schema@.frozen f WHERE f.project = p_project
$$;

-- When this returns, no verb that began before it is still writing: such a verb holds one of the locks, and
-- one that begins waits for them, and then looks.
CREATE FUNCTION @schema@.freeze(p_project text, p_note text) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE @schema@.accounts IN EXCLUSIVE MODE;
    LOCK TABLE @schema@.holds IN EXCLUSIVE MODE;
    DELETE FROM @schema@.frozen WHERE project = p_project;
    INSERT INTO @schema@.frozen SELECT p_project, p_note WHERE p_note IS NOT NULL;
    RETURN 'null';
END
$$;

CREATE FUNCTION @schema@.export_holds(p_project text, p_after text, p_most bigint)
RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_agg(to_jsonb(h) || jsonb_build_object('answers', coalesce((
        SELECT jsonb_agg(a.request_id ORDER BY a.request_id COLLATE "C")
        FROM @schema@.answers a WHERE a.project = h.project AND a.hold_id = h.id), '[]')) ORDER BY h.id)
    FROM (
        SELECT * FROM @schema@.holds o
        WHERE o.project = p_project AND o.id > p_after
        ORDER BY o.id LIMIT p_most
    ) h
$$;

CREATE FUNCTION @schema@.export_accounts(p_project text, p_after text, p_most bigint)
RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_agg(to_jsonb(a) || jsonb_build_object('open', coalesce((
        SELECT jsonb_object_agg(c.hold_id, c.expires_ms)
        FROM @schema@.charges c WHERE c.project = a.project AND c.account = a.name), '{}')) ORDER BY a.name)
    FROM (
        SELECT * FROM @schema@.accounts o WHERE o.project = p_project AND o.name > p_after
        ORDER BY o.name LIMIT p_most
    ) a
$$;

CREATE FUNCTION @schema@.export_models(p_project text, p_after text, p_most bigint)
RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_agg(jsonb_build_object(
        'name', o.name, 'counts', @schema@.observed(p_project, o.model)) ORDER BY o.name)
    FROM (
        SELECT DISTINCT n.name, n.model FROM @schema@.observations n
        WHERE n.project = p_project AND n.name > p_after ORDER BY n.name LIMIT p_most
    ) o
$$;

-- Insert or replace rows: {holds, accounts, removed, models, swept}, each key in them once, into a project
-- that is frozen.
CREATE FUNCTION @schema@.restore(p_project text, p_rows jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_names text[];
BEGIN
    SELECT coalesce(array_agg(n), '{}') INTO v_names FROM (
        SELECT r ->> 'name' AS n FROM jsonb_array_elements(p_rows -> 'accounts') r
        UNION ALL SELECT jsonb_array_elements_text(p_rows -> 'removed')
    ) s;
    PERFORM @schema@.lock_accounts(p_project, v_names);
    IF NOT EXISTS (SELECT 1 FROM @schema@.frozen f WHERE f.project = p_project) THEN
        RETURN to_jsonb('in use'::text);
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

CREATE FUNCTION @schema@.swept_to(p_project text) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT to_jsonb(s.id) FROM @schema@.swept s WHERE s.project = p_project
$$;
