-- Set an amount aside on all accounts of a hold that exist, or on none. Answers one of
-- {granted, repeated, expired, shadowed}, {refused, expired}, {outdated, scopes}, {unknown}, {unlimited},
-- {again, lock, windows, missing}.
-- Flags of a charge: 1 required, 2 has a budget, 4 its account's limit becomes that in `p_limits`, 8 its
-- account refuses nothing, 16 it does not if it is made now. `p_amounts` is what is set aside on each, in its unit; `p_amount` is USD.
CREATE FUNCTION @schema@.reserve(
    p_project text, p_id text, p_names text[], p_flags bigint[], p_limits bigint[], p_amounts bigint[],
    p_revisions bigint[], p_scopes bigint, p_amount bigint, p_on_expiry bigint, p_ttl bigint,
    p_created bigint, p_user text, p_model text, p_endpoint text, p_tags text[], p_units jsonb,
    p_labels jsonb, p_now bigint, p_needs jsonb
) RETURNS jsonb LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    v_frozen text;
    v_scopes bigint;
    v_now bigint;
    v_rows @schema@.accounts[];
    v_row @schema@.accounts;
    v_found text[];
    v_current bigint[];
    v_made text[] := '{}';
    v_prior text[];
    v_taken text[];
    v_missing text[];
    v_unknown text;
    v_outdated text[];
    v_is_due boolean := false;
    v_again jsonb;
    v_expired jsonb := '[]';
    v_windows bigint[] := '{}';
    v_place integer;
    v_own bigint;
    v_limit bigint;
    v_shadowed text[];
    v_shadows jsonb := '[]';
BEGIN
    v_found := p_names;
    IF p_needs IS NOT NULL THEN
        v_found := v_found || @schema@.also(p_needs);
        IF p_needs ? 'making' THEN
            SELECT * INTO v_found, v_made
            FROM @schema@.make_accounts(p_project, v_found, p_needs -> 'making');
        END IF;
    END IF;
    SELECT array_agg(a), coalesce(array_agg(a.name), '{}'), array_agg(a.revision)
    INTO v_rows, v_found, v_current FROM (
        SELECT * FROM @schema@.accounts WHERE project = p_project AND name = ANY (v_found)
        ORDER BY name FOR UPDATE
    ) a;
    SELECT (SELECT f.note FROM @schema@.frozen f WHERE f.project = p_project),
        coalesce((SELECT s.revision FROM @schema@.scopes s WHERE s.project = p_project), 0)
    INTO v_frozen, v_scopes;
    IF v_frozen IS NOT NULL THEN
        PERFORM @schema@.unmake_accounts(p_project, v_made);
        RETURN jsonb_build_object('frozen', v_frozen);
    END IF;
    SELECT h.accounts INTO v_prior FROM @schema@.holds h WHERE h.project = p_project AND h.id = p_id;
    IF FOUND THEN
        PERFORM @schema@.unmake_accounts(p_project, v_made);
        RETURN jsonb_build_object('granted', v_prior, 'repeated', true);
    END IF;
    v_now := @schema@.present_ms(p_now);
    SELECT * INTO v_taken, v_missing, v_unknown, v_outdated
    FROM @schema@.charged(p_names, p_flags, p_revisions, v_found, v_current, v_made);
    IF v_outdated <> '{}' OR v_scopes <> p_scopes THEN
        PERFORM @schema@.unmake_accounts(p_project, v_made);
        RETURN @schema@.outdated(p_project, v_outdated, v_scopes <> p_scopes);
    ELSIF v_unknown IS NOT NULL THEN
        PERFORM @schema@.unmake_accounts(p_project, v_made);
        RETURN jsonb_build_object('unknown', v_unknown);
    ELSIF v_missing <> '{}' THEN
        PERFORM @schema@.unmake_accounts(p_project, v_made);
        RETURN jsonb_build_object('again', true, 'missing', v_missing, 'now', v_now);
    ELSIF v_taken = '{}' THEN
        RETURN jsonb_build_object('unlimited', true);
    END IF;
    FOREACH v_row IN ARRAY v_rows LOOP
        v_is_due := v_is_due OR coalesce(v_row.next_due_ms <= v_now, false)
            OR coalesce(v_row.ends_ms <= v_now, false);
        IF v_row.grants IS NOT NULL THEN
            v_is_due := v_is_due OR @schema@.lapsed(v_row.grants, v_now);
        END IF;
    END LOOP;
    IF v_is_due THEN
        SELECT * INTO v_again, v_expired FROM @schema@.catch_up(
            p_project, v_taken, v_found, v_now, '', true, p_needs -> 'windows');
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
        v_own := v_row.limit_nanos;
        IF v_row.grants IS NOT NULL THEN
            v_own := @schema@.limit_of(v_row);
        END IF;
        v_limit := CASE WHEN p_flags[v_place] & 4 <> 0 THEN p_limits[v_place] ELSE v_own END;
        v_limit := least(v_limit, @max_sum@);
        IF p_amounts[v_place] <> 0
            AND p_amounts[v_place] > v_limit - v_row.spent_nanos - v_row.held_nanos THEN
            IF v_limit IS DISTINCT FROM v_own THEN  -- told by the limit that counted
                v_row.limit_nanos := v_limit;
                v_row.grants := NULL;
            END IF;
            IF (p_flags[v_place] & 8 <> 0 OR p_flags[v_place] & 16 <> 0 AND v_row.name = ANY (v_made))
                AND p_amounts[v_place] <= @max_sum@ - v_row.spent_nanos - v_row.held_nanos THEN
                v_shadowed := v_shadowed || v_row.name;
                v_shadows := v_shadows || @schema@.balance(v_row);
            ELSE
                PERFORM @schema@.unmake_accounts(p_project, v_made);
                RETURN jsonb_build_object('refused', @schema@.balance(v_row), 'expired', v_expired);
            END IF;
        END IF;
        v_windows := v_windows || v_row.window_no;
    END LOOP;
    WITH hold AS (
        INSERT INTO @schema@.holds VALUES (
            p_project, p_id, 'held', v_taken, v_windows, NULL, p_amount, p_on_expiry, 0, p_created,
            v_now + p_ttl, NULL, p_user, p_model, p_endpoint, NULL, NULL, '{}', p_tags, p_units, p_labels,
            v_shadowed)
        ON CONFLICT DO NOTHING RETURNING 1
    ), charges AS (
        INSERT INTO @schema@.charges SELECT p_project, n, v_now + p_ttl, p_id FROM unnest(v_taken) n
    ), accounts AS (
        UPDATE @schema@.accounts SET held_nanos = held_nanos + p_amounts[array_position(p_names, name)],
            open_holds = open_holds + 1, next_due_ms = least(next_due_ms, v_now + p_ttl), updated_ms = v_now,
            limit_nanos = CASE WHEN p_flags[array_position(p_names, name)] & 4 <> 0
                THEN p_limits[array_position(p_names, name)] ELSE limit_nanos END
        WHERE project = p_project AND name = ANY (v_taken)
    )
    SELECT count(*) INTO v_place FROM hold;
    IF v_place = 0 THEN
        RAISE EXCEPTION 'another session made the hold' USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN jsonb_build_object(
        'granted', v_taken, 'repeated', false, 'expired', v_expired, 'shadowed', v_shadows);
END
$$;

CREATE FUNCTION @schema@.read_scopes(p_project text) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('revision', s.revision, 'rules', s.rules)
    FROM @schema@.scopes s WHERE s.project = p_project
$$;

-- The documents as they are: of accounts, and the project's scopes if `p_scopes`.
CREATE FUNCTION @schema@.outdated(p_project text, p_names text[], p_scopes boolean) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'outdated', coalesce((
            SELECT jsonb_object_agg(n.name, CASE WHEN a.revision <> 0 THEN @schema@.document(a) END)
            FROM unnest(p_names) n(name)
            LEFT JOIN @schema@.accounts a ON a.project = p_project AND a.name = n.name), '{}'),
        'scopes', CASE WHEN p_scopes THEN coalesce(@schema@.read_scopes(p_project), '{}') END)
$$;
