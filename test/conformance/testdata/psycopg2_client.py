"""psycopg2 (libpq): simple protocol, server-side cursors, COPY both ways, notices, cancel."""
import io
import sys
import threading

import psycopg2
import psycopg2.extras

dsn = sys.argv[1]
connection = psycopg2.connect(dsn)
with connection, connection.cursor() as cursor:
    cursor.execute("CREATE TEMP TABLE t (id int PRIMARY KEY, name text, doc jsonb)")
    psycopg2.extras.execute_values(
        cursor, "INSERT INTO t VALUES %s", [(i, "name %d" % i, psycopg2.extras.Json({"n": i})) for i in range(1000)]
    )
    cursor.execute("SELECT count(*), sum((doc->>'n')::int) FROM t WHERE name LIKE %s", ("name %",))
    print("rows", cursor.fetchone())
    out = io.StringIO()
    cursor.copy_expert("COPY (SELECT id, name FROM t ORDER BY id LIMIT 3) TO STDOUT (FORMAT csv, HEADER)", out)
    print("copied", out.getvalue().split())
    cursor.copy_expert("COPY t (id, name) FROM STDIN", io.StringIO("5000\tfrom copy\n"))
    cursor.execute("DO $$ BEGIN RAISE NOTICE 'noticed'; END $$")
    print("notice", connection.notices[-1].strip())
with connection, connection.cursor(name="server_side") as cursor:
    cursor.itersize = 100
    cursor.execute("SELECT id FROM t ORDER BY id")
    print("cursor", sum(row[0] for row in cursor))
with connection.cursor() as cursor:
    try:
        cursor.execute("SELEC 1")
    except psycopg2.errors.SyntaxError as error:
        print("error", error.pgcode, error.diag.message_primary, error.diag.statement_position)
    connection.rollback()
    timer = threading.Timer(0.3, connection.cancel)
    timer.start()
    try:
        cursor.execute("SELECT pg_sleep(30)")
    except psycopg2.errors.QueryCanceled as error:
        print("canceled", error.pgcode)
    timer.join()
    connection.rollback()
    cursor.execute("SELECT pg_backend_pid()")
    print("pid", cursor.fetchone()[0] == connection.info.backend_pid)
connection.close()
