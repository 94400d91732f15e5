"""psycopg 3: extended protocol, binary results, pipelines, prepared statements, COPY in binary."""
import sys

import psycopg

with psycopg.connect(sys.argv[1], prepare_threshold=1) as connection:
    connection.execute("CREATE TEMP TABLE t (id int PRIMARY KEY, name text, at timestamptz, tags text[])")
    with connection.cursor() as cursor, cursor.copy("COPY t (id, name, tags) FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["int4", "text", "text[]"])
        for i in range(500):
            copy.write_row((i, "n%d" % i, ["a", "b"]))
    for _ in range(5):
        row = connection.execute("SELECT id, name, tags FROM t WHERE id = %s", (7,), binary=True).fetchone()
    print("binary", row)
    with connection.pipeline() as pipeline, connection.cursor() as cursor:
        cursor.executemany("UPDATE t SET name = %s WHERE id = %s", [("p%d" % i, i) for i in range(100)])
        pipeline.sync()
    print("pipelined", connection.execute("SELECT count(*) FROM t WHERE name LIKE 'p%'").fetchone())
    with connection.pipeline():
        good = connection.execute("SELECT 1")
        try:
            bad = connection.execute("SELECT 1/0")
            bad.fetchone()
        except psycopg.errors.DivisionByZero as error:
            print("pipeline error", error.sqlstate)
    connection.rollback()
    connection.add_notify_handler(lambda notify: print("notified", notify.channel, notify.payload))
    connection.execute("LISTEN channel")
    connection.commit()
    connection.execute("SELECT pg_notify('channel', 'payload')")
    connection.commit()
    connection.execute("SELECT 1")
