-- Book what a call cost, once per hold id. Answers one of
-- {settled, late, crossings, expired}, {repeated}, {unknown}, {again, lock, windows, missing}.
-- The fields of the hold itself (p_amount to p_labels) are for a hold that is not stored here. `p_counts` is
-- what to book of other units, by unit; of one that is not there, what is booked if the hold expires.
CREATE FUNCTION @schema@.settle(
    p_project text, p_id text, p_names text[], p_flags bigint[], p_amount bigint, p_on_expiry bigint,
    p_ttl bigint, p_created bigint, p_user text, p_model text, p_endpoint text, p_tags text[],
    p_units jsonb, p_labels jsonb,
    p_state text, p_cost bigint, p_counts jsonb, p_outcome text, p_request_id text, p_usage jsonb,
    p_thresholds bigint[], p_observed text[], p_buckets text[], p_fade_at bigint,
    p_now bigint, p_needs jsonb
) RETURNS jsonb LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    v_frozen text;
    v_epochs bigint[];
    v_now bigint;
    v_rows @schema@.accounts[];
    v_row @schema@.accounts;
    v_hold @schema@.holds;
    v_known boolean;
    v_open boolean;
    v_late boolean;
    v_found text[];
    v_made text[] := '{}';
    v_taken text[];
    v_missing text[];
    v_unknown text;
    v_lock text[];
    v_is_due boolean := false;
    v_again jsonb;
    v_expired jsonb := '[]';
    v_place integer;
    v_counts jsonb;
    v_held bigint;
    v_back bigint;
    v_cost bigint;
    v_limit bigint;
    v_percent bigint;
    v_reached bigint[];
    v_crossings jsonb := '[]';
BEGIN
    v_found := p_names;
    IF p_needs IS NOT NULL THEN
        v_found := v_found || @schema@.also(p_needs);
        IF p_needs ? 'making' THEN
            SELECT * INTO v_found, v_made
            FROM @schema@.make_accounts(p_project, v_found, p_needs -> 'making');
        END IF;
    END IF;
    SELECT array_agg(a), coalesce(array_agg(a.name), '{}') INTO v_rows, v_found FROM (
        SELECT * FROM @schema@.accounts WHERE project = p_project AND name = ANY (v_found)
        ORDER BY name FOR UPDATE
    ) a;
    v_frozen := (SELECT f.note FROM @schema@.frozen f WHERE f.project = p_project);
    IF v_frozen IS NOT NULL THEN
        PERFORM @schema@.unmake_accounts(p_project, v_made);
        RETURN jsonb_build_object('frozen', v_frozen);
    END IF;
    SELECT * INTO v_hold FROM @schema@.holds WHERE project = p_project AND id = p_id;
    IF FOUND AND (v_hold.state <> 'held' OR v_hold.accounts = '{}') THEN
        -- Otherwise a session that ends it has locked one of its accounts, which all exist.
        SELECT * INTO v_hold FROM @schema@.holds WHERE project = p_project AND id = p_id FOR UPDATE;
    END IF;
    v_known := FOUND;
    v_now := @schema@.present_ms(p_now);
    IF v_known THEN
        IF v_made <> '{}' THEN
            PERFORM @schema@.unmake_accounts(p_project, v_made);
        END IF;
        IF v_hold.state IN ('settled', 'voided') THEN
            RETURN jsonb_build_object('repeated', true);
        END IF;
        v_taken := v_hold.accounts;
        IF NOT v_taken <@ v_found THEN
            -- Accounts that the client did not name, or that were made with this hold since the lock.
            SELECT array_agg(name) INTO v_lock FROM @schema@.accounts
            WHERE project = p_project AND name = ANY (v_taken) AND NOT name = ANY (v_found);
            IF v_lock IS NOT NULL THEN
                RETURN jsonb_build_object('again', true, 'lock', v_lock);
            END IF;
        END IF;
    ELSIF EXISTS (SELECT 1 FROM @schema@.swept s WHERE s.project = p_project AND p_id <= s.id) THEN
        -- As old as records that were swept: it may have been booked.
        PERFORM @schema@.unmake_accounts(p_project, v_made);
        RETURN jsonb_build_object('repeated', true);
    ELSE
        SELECT c.taken, c.missing, c.unknown INTO v_taken, v_missing, v_unknown
        FROM @schema@.charged(p_names, p_flags, NULL, v_found, NULL, v_made) c;
        IF v_unknown IS NOT NULL THEN
            PERFORM @schema@.unmake_accounts(p_project, v_made);
            RETURN jsonb_build_object('unknown', v_unknown);
        ELSIF v_missing <> '{}' THEN
            PERFORM @schema@.unmake_accounts(p_project, v_made);
            RETURN jsonb_build_object('again', true, 'missing', v_missing, 'now', v_now);
        END IF;
    END IF;
    IF v_rows IS NOT NULL THEN
        FOREACH v_row IN ARRAY v_rows LOOP
            v_is_due := v_is_due OR coalesce(v_row.next_due_ms <= v_now, false)
                OR coalesce(v_row.ends_ms <= v_now, false);
            IF v_row.grants IS NOT NULL THEN
                v_is_due := v_is_due OR @schema@.lapsed(v_row.grants, v_now);
            END IF;
        END LOOP;
    END IF;
    IF v_is_due THEN
        SELECT * INTO v_again, v_expired FROM @schema@.catch_up(
            p_project, v_taken, v_found, v_now, p_id, true, p_needs -> 'windows');
        IF v_again IS NOT NULL THEN
            PERFORM @schema@.unmake_accounts(p_project, v_made);
            RETURN v_again;
        END IF;
        SELECT array_agg(a) INTO v_rows FROM (
            SELECT * FROM @schema@.accounts WHERE project = p_project AND name = ANY (v_found) ORDER BY name
        ) a;
    END IF;
    IF NOT v_known THEN
        SELECT p_project, p_id, 'held', v_taken,
            array(SELECT r.window_no FROM unnest(v_taken) WITH ORDINALITY t(name, place)
                JOIN unnest(v_rows) r ON r.name = t.name ORDER BY t.place),
            NULL, p_amount, p_on_expiry, 0, p_created, v_now + p_ttl, NULL, p_user, p_model, p_endpoint, NULL,
            NULL, '{}', p_tags, p_units, p_labels, NULL
        INTO v_hold;
        INSERT INTO @schema@.holds VALUES (v_hold.*) ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'another session made the hold' USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;
    v_open := v_known AND v_hold.state = 'held';
    v_late := v_hold.state = 'expired';
    v_epochs := coalesce(v_hold.epochs, array_fill(NULL::bigint, ARRAY[cardinality(v_taken)]));
    IF v_hold.units IS NOT NULL THEN
        v_hold.units := (
            SELECT jsonb_object_agg(u.key, jsonb_build_array(u.value -> 0, u.value -> 1,
                CASE WHEN p_state = 'voided' THEN '0' ELSE coalesce(p_counts -> u.key, u.value -> 1) END))
            FROM jsonb_each(v_hold.units) u);
    END IF;
    FOR i IN 1 .. cardinality(v_taken) LOOP
        v_place := array_position(v_found, v_taken[i]);
        CONTINUE WHEN v_place IS NULL;
        v_row := v_rows[v_place];
        v_reached := '{}';
        IF v_row.window_no = v_hold.windows[i] THEN
            IF starts_with(v_row.name, 'labels:@unit=') THEN
                v_counts := v_hold.units -> @schema@.unit_of(v_row.name);
                v_held := coalesce((v_counts ->> 0)::bigint, 0);
                v_back := coalesce((v_counts ->> 1)::bigint, 0);
                v_cost := coalesce((v_counts ->> 2)::bigint, 0);
            ELSE
                v_held := v_hold.amount_nanos;
                v_back := v_hold.on_expiry_nanos;
                v_cost := p_cost;
            END IF;
            IF v_late AND (CASE WHEN v_row.parts IS NULL THEN v_hold.epochs[i] = v_row.epoch_no
                ELSE v_row.parts @> jsonb_build_array(jsonb_build_object('epoch', v_hold.epochs[i])) END) THEN
                v_row.spent_nanos := @schema@.plus(v_row.spent_nanos, -v_back);
                v_row.models := @schema@.book(v_row.models, v_hold.model, -v_back);
                v_row.expired_nanos := @schema@.plus(v_row.expired_nanos, -v_back);
                v_row.expiries := v_row.expiries - 1;
                IF v_row.parts IS NOT NULL THEN
                    v_row.parts := @schema@.book_part(
                        v_row.parts, v_hold.epochs[i], v_hold.model, -v_back, -1);
                END IF;
            END IF;
            IF v_open THEN
                v_row.held_nanos := v_row.held_nanos - v_held;
            END IF;
            v_row.spent_nanos := @schema@.plus(v_row.spent_nanos, v_cost);
            v_row.models := @schema@.book(v_row.models, v_hold.model, v_cost);
            IF v_row.parts IS NOT NULL AND v_cost <> 0 THEN
                v_row := @schema@.begin_part(v_row, v_now);
                v_row.parts := @schema@.book_part(v_row.parts, v_row.epoch_no, v_hold.model, v_cost, 0);
            END IF;
            v_epochs[i] := v_row.epoch_no;
            v_limit := v_row.limit_nanos;
            IF v_row.grants IS NOT NULL THEN
                v_limit := @schema@.limit_of(v_row);
            END IF;
            IF v_limit <> 0 THEN
                FOREACH v_percent IN ARRAY p_thresholds LOOP
                    IF v_row.spent_nanos::numeric * 100 >= v_percent::numeric * v_limit
                        AND NOT v_percent = ANY (v_row.crossed) THEN
                        v_reached := v_reached || v_percent;
                    END IF;
                END LOOP;
            END IF;
        END IF;
        UPDATE @schema@.accounts SET spent_nanos = v_row.spent_nanos, models = v_row.models,
            expired_nanos = v_row.expired_nanos, expiries = v_row.expiries, held_nanos = v_row.held_nanos,
            epoch_no = v_row.epoch_no, parts = v_row.parts, ends_ms = v_row.ends_ms,
            crossed = crossed || v_reached, open_holds = open_holds - v_open::integer, updated_ms = v_now
        WHERE project = p_project AND name = v_row.name
        RETURNING * INTO v_row;
        FOREACH v_percent IN ARRAY v_reached LOOP
            v_crossings := v_crossings || jsonb_build_object(
                'account', v_row.name, 'threshold', v_percent, 'balance', @schema@.balance(v_row));
        END LOOP;
    END LOOP;
    WITH closed AS (
        DELETE FROM @schema@.charges WHERE v_open AND project = p_project AND account = ANY (v_taken)
            AND expires_ms = v_hold.expires_ms AND hold_id = p_id
    )
    UPDATE @schema@.holds SET state = p_state, cost_nanos = p_cost, ended_ms = v_now, outcome = p_outcome,
        request_id = coalesce(p_request_id, request_id), usage = p_usage, units = v_hold.units,
        epochs = v_epochs
    WHERE project = p_project AND id = p_id;
    FOR i IN 1 .. cardinality(p_observed) LOOP
        PERFORM @schema@.observe(p_project, p_observed[i], p_buckets[i], p_fade_at);
    END LOOP;
    RETURN jsonb_build_object(
        'settled', p_cost, 'late', v_late, 'crossings', v_crossings, 'expired', v_expired);
END
$$;
