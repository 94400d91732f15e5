\set VERBOSITY verbose
\pset pager off
CREATE TEMP TABLE t (id int PRIMARY KEY, name text);
INSERT INTO t SELECT i, 'name ' || i FROM generate_series(1, 100) i RETURNING id \g (format=unaligned tuples_only=on) | tail -n 1
\copy t (id, name) FROM PROGRAM 'printf "200\tcopied\n"'
\copy (SELECT * FROM t WHERE id > 99 ORDER BY id) TO STDOUT
\d t
\dt pg_catalog.pg_class
\df pg_catalog.lower
SELECT id AS "first", name FROM t ORDER BY id LIMIT 1 \gset
\echo :first :name
SELECT 'SELECT ' || i FROM generate_series(1, 3) i \gexec
BEGIN;
SELECT 1/0;
SELECT 1;
ROLLBACK;
\set FETCH_COUNT 7
SELECT sum(id) FROM t;
SELECT id FROM t ORDER BY id LIMIT 20;
\unset FETCH_COUNT
SELECT 1 AS one \; SELECT 2 AS two;
EXPLAIN (COSTS OFF) SELECT * FROM t WHERE id = 1;
\errverbose
