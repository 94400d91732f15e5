package sql

import "testing"

func TestQueriesAndChangesOfData(t *testing.T) {
	checkUnits(t, []unitsTest{
		{"tables and calls are found wherever they stand", []unitsCase{
			{"SELECT a, (SELECT max(b) FROM s.t2) FROM t1 JOIN LATERAL f(t1.x) ON true WHERE EXISTS (TABLE t3) ORDER BY g(1) LIMIT h(2)", []string{"query: SELECT; reads s.t2,t1,t3; calls max,f,g,h"}},
			{"SELECT count(*) FILTER (WHERE f(x)) OVER (PARTITION BY g(y) ORDER BY h(z)), percentile_cont(0.5) WITHIN GROUP (ORDER BY q(w)) FROM t WINDOW w AS (ORDER BY i(1))", []string{"query: SELECT; reads t; calls count,f,g,h,percentile_cont,q,i"}},
			{"SELECT * FROM ROWS FROM (f(1), g(2)) x, XMLTABLE('/a' PASSING (SELECT x FROM t) COLUMNS b int PATH 'c' DEFAULT h(1)), JSON_TABLE(j(1), '$' COLUMNS (a int PATH '$.a'))", []string{"query: SELECT; reads t; calls f,g,h,j"}},
			{"SELECT f(1) FROM t TABLESAMPLE s.m (g(1)) REPEATABLE (h(1)) GROUP BY ROLLUP (i(x)) HAVING j(1) > 0", []string{"query: SELECT; reads t; calls f,g,h,i,j"}},
			{"SELECT ARRAY[f(1)], ARRAY(SELECT g(2) FROM a), ROW(h(3)), (i(4)).x, (j(5))[k(6)], CASE l(7) WHEN m(8) THEN n(9) ELSE o(10) END", []string{"query: SELECT; reads a; calls f,g,h,i,j,k,l,m,n,o"}},
			{"SELECT JSON_OBJECT('a': f(1)), JSON_ARRAYAGG(g(x)), xmlelement(name a, h(y)), NULLIF(i(1), j(2)), GREATEST(k(1)), l(a := m(2)) FROM t", []string{"query: SELECT; reads t; calls f,g,h,i,j,k,l,m"}},
			{"SELECT DISTINCT ON (f(a)) a FROM t ORDER BY a LIMIT (SELECT 1 FROM u) OFFSET g(1)", []string{"query: SELECT; reads t,u; calls f,g"}},
		}},
		{"what only looks like a call or a table is none", []unitsCase{
			{"SELECT x::regclass, CAST(b AS int[]), COALESCE(a, b), current_date, t.*, a.b.c FROM t", []string{"query: SELECT; reads t"}},
			{"SELECT * FROM a, b FOR UPDATE OF a", []string{"query: SELECT; reads a,b"}},
			{`SELECT a AS f, "g(1)" FROM t AS u`, []string{"query: SELECT; reads t"}},
		}},
		{"schemas are kept, those of a database's name too", []unitsCase{
			{`SELECT pg_catalog.lower(a), s.f(VARIADIC c), EXTRACT(year FROM d) FROM db.s.t, "Ünï"."Té"`, []string{"query: SELECT; reads s.t,Ünï.Té; calls pg_catalog.lower,s.f,pg_catalog.extract"}},
			{"SELECT x.y.z()", []string{"query: SELECT; calls y.z"}},
		}},
		{"a set operation, VALUES and TABLE are queries", []unitsCase{
			{"SELECT * FROM a UNION (SELECT * FROM b EXCEPT SELECT * FROM c) ORDER BY d()", []string{"query: SELECT; reads a,b,c; calls d"}},
			{"VALUES (f(1)), ((SELECT 2 FROM t))", []string{"query: SELECT; reads t; calls f"}},
			{"TABLE s.t", []string{"query: SELECT; reads s.t"}},
		}},
		{"a WITH query hides a table only where it is in sight", []unitsCase{
			{"WITH t AS (SELECT 1) SELECT * FROM t, public.t", []string{"query: SELECT; reads public.t"}},
			{"WITH t AS (SELECT * FROM t) SELECT * FROM t", []string{"query: SELECT; reads t"}},
			{"WITH RECURSIVE t AS (SELECT 1 UNION ALL SELECT * FROM t) SELECT * FROM t", []string{"query: SELECT"}},
			{"WITH a AS (SELECT * FROM b), b AS (SELECT * FROM a) SELECT * FROM b", []string{"query: SELECT; reads b"}},
			{"WITH RECURSIVE a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a", []string{"query: SELECT"}},
			{"SELECT * FROM (WITH x AS (SELECT 1) SELECT * FROM x) y, x", []string{"query: SELECT; reads x"}},
			{"WITH x AS (SELECT 1) SELECT (SELECT a FROM x), * FROM (SELECT * FROM x UNION SELECT * FROM y) z ORDER BY (SELECT 1 FROM x)", []string{"query: SELECT; reads y"}},
			{"WITH x AS (SELECT 1) DELETE FROM x USING x y WHERE x.id = y.id", []string{"dml: DELETE; writes x"}},
			{"WITH x AS (SELECT 1) INSERT INTO t WITH y AS (SELECT * FROM x) SELECT * FROM y, x, z", []string{"dml: INSERT; reads z; writes t"}},
			{"(WITH x AS (SELECT 1) SELECT * FROM x) UNION SELECT * FROM x", []string{"query: SELECT; reads x"}},
		}},
		{"changes of data in WITH queries are units of their own", []unitsCase{
			{"WITH d AS (DELETE FROM a RETURNING *), i AS (INSERT INTO b SELECT * FROM d) UPDATE c SET x = (SELECT count(*) FROM i, e) FROM d WHERE c.id = d.id", []string{"dml: UPDATE; reads e; writes c; calls count", "dml: DELETE; writes a; unfiltered", "dml: INSERT; writes b"}},
			{"WITH d AS (UPDATE a SET x = 1 RETURNING f(x)) SELECT * FROM d", []string{"query: SELECT", "dml: UPDATE; writes a; calls f; unfiltered"}},
			{"WITH m AS (MERGE INTO a USING b ON true WHEN MATCHED THEN DELETE RETURNING a.x) SELECT 1", []string{"query: SELECT", "dml: MERGE; reads b; writes a"}},
			{"SELECT * FROM (WITH d AS (DELETE FROM a RETURNING *) SELECT * FROM d) x", []string{"query: SELECT", "dml: DELETE; writes a; unfiltered"}},
		}},
		{"INSERT, UPDATE, DELETE and MERGE write one table and read the others", []unitsCase{
			{"INSERT INTO t (a) SELECT a FROM u ON CONFLICT (a) DO UPDATE SET a = f(excluded.a) WHERE t.b IN (SELECT b FROM v) RETURNING g(a)", []string{"dml: INSERT; reads u,v; writes t; calls f,g"}},
			{"INSERT INTO s.t DEFAULT VALUES", []string{"dml: INSERT; writes s.t"}},
			{"UPDATE t SET (a, b) = (SELECT f(1), 2 FROM u), c[g(1)] = h(2) FROM v WHERE t.id = v.id RETURNING (SELECT 1 FROM w)", []string{"dml: UPDATE; reads u,v,w; writes t; calls f,g,h"}},
			{"DELETE FROM t USING u WHERE t.id = u.id AND f(u.x) RETURNING *", []string{"dml: DELETE; reads u; writes t; calls f"}},
			{"MERGE INTO t USING (SELECT * FROM s) q ON q.id = t.id WHEN MATCHED AND f(q.x) THEN UPDATE SET a = (SELECT 1 FROM z) WHEN NOT MATCHED THEN INSERT VALUES (g(1))", []string{"dml: MERGE; reads s,z; writes t; calls f,g"}},
		}},
		{"a query that makes a table is two units", []unitsCase{
			{"SELECT a INTO TEMP b FROM c", []string{"ddl: SELECT INTO; writes b", "query: SELECT; reads c"}},
			{"SELECT 1 INTO a.b UNION SELECT 2 FROM c", []string{"ddl: SELECT INTO; writes a.b", "query: SELECT; reads c"}},
			{"CREATE TABLE a.b AS SELECT * FROM c", []string{"ddl: CREATE TABLE AS; writes a.b", "query: SELECT; reads c"}},
			{"CREATE TABLE b AS EXECUTE p(f(1))", []string{"ddl: CREATE TABLE AS; writes b", "session: EXECUTE; calls f"}},
			{"CREATE MATERIALIZED VIEW m AS SELECT f(1) FROM c", []string{"ddl: CREATE MATERIALIZED VIEW; writes m", "query: SELECT; reads c; calls f"}},
		}},
		{"a statement within another is a unit of its own", []unitsCase{
			{"EXPLAIN ANALYZE DELETE FROM t", []string{"query: EXPLAIN", "dml: DELETE; writes t; unfiltered"}},
			{"EXPLAIN (ANALYZE, BUFFERS) EXECUTE p", []string{"query: EXPLAIN", "session: EXECUTE"}},
			{"EXPLAIN CREATE TABLE x AS SELECT * FROM y", []string{"query: EXPLAIN", "ddl: CREATE TABLE AS; writes x", "query: SELECT; reads y"}},
			{"EXPLAIN ANALYZE DECLARE c CURSOR FOR SELECT f(1)", []string{"query: EXPLAIN", "query: DECLARE CURSOR", "query: SELECT; calls f"}},
			{"PREPARE p (int) AS DELETE FROM t WHERE id = $1", []string{"session: PREPARE", "dml: DELETE; writes t"}},
			{"DECLARE c CURSOR WITH HOLD FOR SELECT * FROM t", []string{"query: DECLARE CURSOR", "query: SELECT; reads t"}},
			{"COPY (DELETE FROM t RETURNING *) TO STDOUT", []string{"copy: COPY", "dml: DELETE; writes t; unfiltered"}},
			{"COPY (SELECT f(1) FROM t) TO '/tmp/x'", []string{"copy: COPY; file", "query: SELECT; reads t; calls f"}},
			{"CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM u; SELECT f(1) FROM v)", []string{"ddl: CREATE RULE; writes t", "dml: DELETE; writes u; unfiltered", "query: SELECT; reads v; calls f"}},
			{"CREATE PROCEDURE f() BEGIN ATOMIC DELETE FROM t; SELECT 1 FROM u; END", []string{"ddl: CREATE PROCEDURE; calls f", "dml: DELETE; writes t; unfiltered", "query: SELECT; reads u"}},
			{"CREATE SCHEMA s CREATE TABLE t (a int) CREATE VIEW v AS SELECT * FROM t", []string{"ddl: CREATE SCHEMA; writes s.*", "ddl: CREATE TABLE; writes t,s.t", "ddl: CREATE VIEW; reads t,s.t; writes v,s.v"}},
		}},
		{"COPY tells programs and files of the server from the client's stream", []unitsCase{
			{"COPY t FROM STDIN", []string{"copy: COPY; writes t"}},
			{"COPY s.t (a) TO STDOUT WITH (FORMAT csv)", []string{"copy: COPY; reads s.t"}},
			{"COPY t FROM PROGRAM 'id' WHERE f(a)", []string{"copy: COPY; writes t; calls f; program"}},
			{"COPY t TO PROGRAM 'id'", []string{"copy: COPY; reads t; program"}},
			{"COPY t FROM '/etc/passwd'", []string{"copy: COPY; writes t; file"}},
		}},
		{"cursors, calls and DO", []unitsCase{
			{"FETCH 10 FROM c", []string{"query: FETCH"}},
			{"MOVE c", []string{"query: MOVE"}},
			{"CLOSE c", []string{"query: CLOSE CURSOR"}},
			{"CLOSE ALL", []string{"query: CLOSE CURSOR"}},
			{"CALL s.p(f(1))", []string{"call: CALL; calls s.p,f"}},
			{"DO $$ BEGIN DELETE FROM t; END $$", []string{"do: DO"}},
			{"DO LANGUAGE plpgsql 'BEGIN END'", []string{"do: DO"}},
		}},
	})
}
