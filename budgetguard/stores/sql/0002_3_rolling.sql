-- Rolling accounts: what was spent falls out of the window part by part (`booking`).

-- Milliseconds of a duration (`windows.duration_ms`).
CREATE FUNCTION @schema@.duration_ms(p_duration text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(substring(p_duration FROM '^[0-9]+')::bigint, 1) * 1000
        * CASE ltrim(p_duration, '0123456789')
            WHEN 's' THEN 1 WHEN 'm' THEN 60
            WHEN 'h' THEN 3600 WHEN 'hourly' THEN 3600 WHEN 'd' THEN 86400 WHEN 'daily' THEN 86400
            WHEN 'w' THEN 604800 WHEN 'weekly' THEN 604800
            WHEN 'mo' THEN 2629746 WHEN 'monthly' THEN 2629746
            WHEN 'y' THEN 31556952 WHEN 'yearly' THEN 31556952 END
$$;

-- When what is spent now falls out (`windows.falls_out`).
CREATE FUNCTION @schema@.falls_out(p_duration text, p_now bigint) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_whole bigint := @schema@.duration_ms(p_duration);
    v_part bigint := greatest(1, v_whole / 60);
BEGIN
    RETURN (p_now / v_part + 1) * v_part + v_whole;
END
$$;

-- The account with a part for what is booked now, if that does not fall out together with the last one.
CREATE FUNCTION @schema@.begin_part(a @schema@.accounts, p_now bigint) RETURNS @schema@.accounts
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_until bigint := @schema@.falls_out(a.duration, p_now);
BEGIN
    IF v_until IS NULL OR (a.parts -> -1 ->> 'until')::bigint >= v_until THEN
        RETURN a;
    END IF;
    a.epoch_no := a.epoch_no + 1;
    a.parts := a.parts || jsonb_build_object('epoch', a.epoch_no, 'until', v_until, 'spent', 0, 'expired', 0,
        'expiries', 0, 'models', '{}'::jsonb);
    a.ends_ms := (a.parts -> 0 ->> 'until')::bigint;
    RETURN a;
END
$$;

-- The parts with a cost added to one of them: that of an expiry (1), of one taken back (-1), or of none (0).
CREATE FUNCTION @schema@.book_part(
    p_parts jsonb, p_epoch bigint, p_model text, p_cost bigint, p_expiries bigint
) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(CASE WHEN (p.part ->> 'epoch')::bigint IS DISTINCT FROM p_epoch THEN p.part
        ELSE p.part || jsonb_build_object(
            'spent', @schema@.plus((p.part ->> 'spent')::bigint, p_cost),
            'models', @schema@.book(p.part -> 'models', p_model, p_cost),
            'expired', CASE WHEN p_expiries = 0 THEN (p.part ->> 'expired')::bigint
                ELSE @schema@.plus((p.part ->> 'expired')::bigint, p_cost) END,
            'expiries', (p.part ->> 'expiries')::bigint + p_expiries)
        END ORDER BY p.place), '[]')
    FROM jsonb_array_elements(p_parts) WITH ORDINALITY p(part, place)
$$;

CREATE FUNCTION @schema@.book_expiry(p_project text, p_name text, p_model text, p_cost bigint) RETURNS void
LANGUAGE sql AS $$
    UPDATE @schema@.accounts SET parts = @schema@.book_part(parts, epoch_no, p_model, p_cost, 1)
    WHERE project = p_project AND name = p_name
$$;

-- The account without the parts that are over.
CREATE FUNCTION @schema@.drop_parts(a @schema@.accounts, p_now bigint) RETURNS @schema@.accounts
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_limit numeric := coalesce(nullif(@schema@.limit_of(a), 0), @max_sum@);
BEGIN
    SELECT coalesce(jsonb_agg(p.part ORDER BY p.place), '[]'),
        least(coalesce(sum((p.part ->> 'spent')::numeric), 0), @max_sum@),
        least(coalesce(sum((p.part ->> 'expired')::numeric), 0), @max_sum@),
        coalesce(sum((p.part ->> 'expiries')::bigint), 0)
    INTO a.parts, a.spent_nanos, a.expired_nanos, a.expiries
    FROM jsonb_array_elements(a.parts) WITH ORDINALITY p(part, place)
    WHERE (p.part ->> 'until')::bigint > p_now;
    a.ends_ms := (a.parts -> 0 ->> 'until')::bigint;
    SELECT coalesce(jsonb_object_agg(s.model, s.nanos), '{}') INTO a.models FROM (
        SELECT m.key AS model, least(sum(m.value::numeric), @max_sum@) AS nanos
        FROM jsonb_array_elements(a.parts) p, jsonb_each_text(p -> 'models') m GROUP BY m.key
    ) s;
    a.crossed := array(
        SELECT c.percent FROM unnest(a.crossed) WITH ORDINALITY c(percent, place)
        WHERE CASE WHEN c.percent > 0 THEN a.spent_nanos::numeric * 100 >= c.percent * v_limit
            ELSE a.parts <> '[]' END
        ORDER BY c.place);
    RETURN a;
END
$$;
