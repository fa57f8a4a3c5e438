-- Rows whole, for other stores and from them: as in version 1, of what there is now.

CREATE FUNCTION @schema@.export_calls(p_project text, p_after text, p_most bigint)
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

CREATE FUNCTION @schema@.export_budgets(p_project text, p_after text, p_most bigint)
RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_agg(to_jsonb(a) || jsonb_build_object('open', coalesce((
        SELECT jsonb_object_agg(c.hold_id, c.expires_ms)
        FROM @schema@.charges c WHERE c.project = a.project AND c.account = a.name), '{}')) ORDER BY a.name)
    FROM (
        SELECT * FROM @schema@.accounts o WHERE o.project = p_project AND o.name > p_after
        ORDER BY o.name LIMIT p_most
    ) a
$$;

-- Insert or replace rows: {holds, accounts, removed, models, swept, scopes, entries}, each key in them once,
-- into a project that is frozen.
CREATE FUNCTION @schema@.restore_rows(p_project text, p_rows jsonb) RETURNS jsonb
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
    INSERT INTO @schema@.scopes
    SELECT p_project, (s ->> 'revision')::bigint, s ->> 'rules'
    FROM jsonb_array_elements(p_rows -> 'scopes') s
    ON CONFLICT (project) DO UPDATE SET revision = excluded.revision, rules = excluded.rules;
    INSERT INTO @schema@.entries
    SELECT p_project, e ->> 'id', e ->> 'text' FROM jsonb_array_elements(p_rows -> 'entries') e
    ON CONFLICT DO NOTHING;
    RETURN 'null';
END
$$;
