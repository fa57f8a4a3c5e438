-- What holds after every migration.

DO $do$
DECLARE
    v_grant record;
    v_function regprocedure;
BEGIN
    -- Whoever may use the accounts may use tables that a later version adds, as far.
    FOR v_grant IN
        SELECT a.privilege_type AS what, a.grantee::regrole AS who, t.oid::regclass AS made
        FROM pg_class c, aclexplode(c.relacl) a, pg_class t
        WHERE c.oid = '@schema@.accounts'::regclass AND a.grantee NOT IN (0, c.relowner)
            AND t.relnamespace = c.relnamespace AND t.relkind = 'r' AND t.relacl IS NULL
    LOOP
        EXECUTE format('GRANT %s ON %s TO %s', v_grant.what, v_grant.made, v_grant.who);
    END LOOP;
    -- Functions look for what they use in this schema alone: whoever may make functions elsewhere cannot have
    -- them run in here.
    FOR v_function IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = '@schema@'::regnamespace LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, @schema@, pg_temp', v_function);
    END LOOP;
END
$do$;
