-- As in 0004, and of a model too many nothing is learned: the number is `learning.MOST_MODELS`.
CREATE OR REPLACE FUNCTION @schema@.observe(p_project text, p_name text, p_bucket text, p_fade_at bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_model bytea := sha256(convert_to(p_name, 'UTF8'));
    v_shard uuid;
    v_counts jsonb;
BEGIN
    SELECT o.shard, @schema@.book(o.counts, p_bucket, 1) INTO v_shard, v_counts
    FROM @schema@.observations o WHERE o.project = p_project AND o.model = v_model
    ORDER BY o.shard LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        IF NOT EXISTS (SELECT 1 FROM @schema@.observations o WHERE o.project = p_project AND o.model = v_model)
            AND (SELECT count(DISTINCT o.model) FROM @schema@.observations o WHERE o.project = p_project) >= 2000
        THEN
            RETURN;
        END IF;
        INSERT INTO @schema@.observations (project, model, counts, name)
        VALUES (p_project, v_model, jsonb_build_object(p_bucket, 1), p_name);
        RETURN;
    END IF;
    IF (SELECT sum(c.value::bigint) FROM jsonb_each_text(v_counts) c) >= p_fade_at THEN
        SELECT coalesce(jsonb_object_agg(c.key, c.value::bigint / 2), '{}') INTO v_counts
        FROM jsonb_each_text(v_counts) c WHERE c.value::bigint > 1;
    END IF;
    UPDATE @schema@.observations SET counts = v_counts
    WHERE project = p_project AND model = v_model AND shard = v_shard;
END
$$;
