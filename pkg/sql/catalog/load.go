package catalog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// lockNotAvailable is the SQLSTATE of lock_timeout.
const lockNotAvailable = "55P03"

// Load takes a picture of the database that conn is connected to, PostgreSQL 13 or later, in one snapshot. The role needs no
// privileges but those that everybody has. What it sets ends with its transaction; conn must be in none, and is in none afterwards
// unless the error is one of the connection. Views and expressions of tables that somebody has locked are missing.
func Load(ctx context.Context, conn *pgconn.PgConn) (*Catalog, error) {
	l := &loader{conn: conn, names: map[string]string{}, arrays: pgtype.NewMap(), c: &Catalog{
		relations: map[uint32]*Relation{}, relationsNamed: map[string][]*Relation{},
		types: map[uint32]*Type{}, typesNamed: map[string][]*Type{},
		functions: map[uint32]*Function{}, functionsNamed: map[string][]*Function{}, operators: map[string][]*Operator{},
	}}
	if err := l.load(ctx); err != nil {
		if !conn.IsClosed() {
			err = errors.Join(err, l.exec(ctx, "ROLLBACK"))
		}
		return nil, fmt.Errorf("load catalog: %w", err)
	}
	return l.c, nil
}

// Current is false when something of what Load reads has changed since c was taken. It reads the catalog's tables but sends one row.
func (c *Catalog) Current(ctx context.Context, conn *pgconn.PgConn) (bool, error) {
	l := &loader{conn: conn, c: &Catalog{}}
	if err := l.query(ctx, []reader{{selectMarker, l.marker}}); err != nil {
		return false, fmt.Errorf("compare catalog: %w", err)
	}
	return l.c.marker == c.marker, nil
}

// A loader fills a Catalog.
type loader struct {
	conn *pgconn.PgConn
	c    *Catalog
	// names has each name once, because columns' repeat in many tables.
	names map[string]string
	// toDeparse are the OIDs of relations with what is to be deparsed.
	toDeparse []string
	// arrays reads arrays of text.
	arrays *pgtype.Map
}

// A reader is a query and what takes its rows.
type reader struct {
	query string
	take  func(*row)
}

func (l *loader) load(ctx context.Context) error {
	multirange, sqlBody := "rngmultitypid", "pg_catalog.pg_get_function_sqlbody(p.oid)"
	if major, err := l.serverMajor(); err != nil {
		return err
	} else if major < 14 {
		multirange, sqlBody = "rngtypid", "NULL"
	}
	none := func(*row) {}
	readers := []reader{}
	for statement := range strings.SplitSeq(begin, ";\n") {
		readers = append(readers, reader{statement, none})
	}
	readers = append(readers, reader{selectMarker, l.marker}, reader{selectRelations, l.relation}, reader{selectColumns, l.column},
		reader{selectInheritance, l.inheritance}, reader{selectReferences, l.reference},
		reader{selectRules, l.rule}, reader{selectTriggers, l.trigger},
		reader{fmt.Sprintf(selectTypes, multirange), l.typ}, reader{selectLabels, l.label}, reader{selectDomainChecks, l.domainCheck},
		reader{fmt.Sprintf(selectFunctions, sqlBody), l.function}, reader{selectAggregates, l.aggregate},
		reader{selectOperatorNames, l.operatorName}, reader{selectOperators, l.operator}, reader{selectCasts, l.cast}, reader{selectDeparsed, l.deparsed})
	if err := l.query(ctx, readers); err != nil {
		return err
	}
	if err := l.deparse(ctx, l.toDeparse); err != nil {
		return err
	}
	return l.exec(ctx, "COMMIT")
}

// deparse reads the definitions of views, and the expressions of tables. When somebody holds a lock on one of them, it tries the halves.
func (l *loader) deparse(ctx context.Context, oids []string) error {
	if len(oids) == 0 {
		return nil
	}
	list := strings.Join(oids, ",")
	none := func(*row) {}
	err := l.query(ctx, []reader{{"SAVEPOINT deparse", none}, {fmt.Sprintf(selectViews, list), l.definition},
		{fmt.Sprintf(selectDefaults, list), l.expression}, {fmt.Sprintf(selectChecks, list), l.check}, {"RELEASE SAVEPOINT deparse", none}})
	if !locked(err) {
		return err
	}
	if err := l.exec(ctx, "ROLLBACK TO SAVEPOINT deparse; SET LOCAL lock_timeout = '10ms'"); err != nil {
		return err
	}
	if len(oids) == 1 {
		return nil
	}
	half := len(oids) / 2
	return errors.Join(l.deparse(ctx, oids[:half]), l.deparse(ctx, oids[half:]))
}

func locked(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == lockNotAvailable
}

func (l *loader) serverMajor() (int, error) {
	version := l.conn.ParameterStatus("server_version")
	digits := version
	if end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		digits = version[:end]
	}
	major, err := strconv.Atoi(digits)
	if err != nil {
		return 0, fmt.Errorf("server version %q is not a number", version)
	}
	return major, nil
}

func (l *loader) exec(ctx context.Context, text string) error {
	return l.conn.Exec(ctx, text).Close()
}

// query runs queries in one round trip.
func (l *loader) query(ctx context.Context, readers []reader) (err error) {
	var text strings.Builder
	for _, r := range readers {
		text.WriteString(r.query)
		text.WriteString(";\n")
	}
	results := l.conn.Exec(ctx, text.String())
	defer func() {
		if closed := results.Close(); err == nil {
			err = closed
		}
	}()
	for i := 0; results.NextResult(); i++ {
		rows := results.ResultReader()
		for rows.NextRow() {
			r := row{values: rows.Values()}
			readers[i].take(&r)
			if r.err != nil {
				return fmt.Errorf("row of query %d: %w", i, r.err)
			}
		}
		if _, err := rows.Close(); err != nil {
			return err
		}
	}
	return nil
}
