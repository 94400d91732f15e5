package mask_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sallyport-dev/sallyport/pkg/mask"
	"github.com/sallyport-dev/sallyport/test/env"
)

// A server is a connection to a real PostgreSQL, whose word it is whether a value is one of its type.
type server struct {
	*pgconn.PgConn
	t     testing.TB
	types map[uint32]*mask.Type
}

// schema is what the tests' types are.
const schema = `
create extension citext; create extension hstore;
create type mood as enum ('sad', 'content', 'happy');
create type address as (street text, number int, since date, tags text[]);
create type person as (name varchar(20), home address, moods mood[], born date);
create domain mail as varchar(40);
create domain mails as mail[];
create type textrange as range (subtype = text);
create table customers (id int, email text, card bigint, note jsonb);
alter table customers drop column card;
`

func connect(t testing.TB) *server {
	t.Helper()
	postgres := env.Postgres(t, env.PostgresOptions{SQL: strings.Split(strings.TrimSpace(schema), ";\n")})
	connection, err := pgconn.Connect(context.Background(), postgres.URL(env.Superuser, postgres.Password, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close(context.Background()) })
	return &server{PgConn: connection, t: t, types: map[uint32]*mask.Type{}}
}

// value is the one value of a query in a format, with the type and modifier that the server says.
func (s *server) value(query string, format int16) (value []byte, oid uint32, mod int32) {
	s.t.Helper()
	result := s.ExecParams(context.Background(), query, nil, nil, nil, []int16{format}).Read()
	if result.Err != nil {
		s.t.Fatalf("%s: %v", query, result.Err)
	}
	return result.Rows[0][0], result.FieldDescriptions[0].DataTypeOID, result.FieldDescriptions[0].TypeModifier
}

// text is what the server writes of a value that it was given in a format, cast to a type, or why it does not take it.
func (s *server) text(value []byte, oid uint32, format int16, as string) (string, error) {
	s.t.Helper()
	result := s.ExecParams(context.Background(), "select ($1::"+as+")::text", [][]byte{value}, []uint32{oid}, []int16{format}, nil).Read()
	if result.Err != nil {
		return "", result.Err
	}
	return string(result.Rows[0][0]), nil
}

// strings are the rows of a query of one column.
func (s *server) strings(format string, arguments ...any) []string {
	s.t.Helper()
	result := s.ExecParams(context.Background(), fmt.Sprintf(format, arguments...), nil, nil, nil, nil).Read()
	if result.Err != nil {
		s.t.Fatal(result.Err)
	}
	var all []string
	for _, row := range result.Rows {
		all = append(all, string(row[0]))
	}
	return all
}

// typeOf reads a type from the catalog where it is none of PostgreSQL's own.
func (s *server) typeOf(oid uint32) *mask.Type {
	s.t.Helper()
	if t := mask.Builtin(oid); t != nil {
		return t
	}
	if t, ok := s.types[oid]; ok {
		return t
	}
	t := &mask.Type{OID: oid, Mod: -1}
	s.types[oid] = t
	row := s.strings(`select unnest(array[typname::text, typtype::text, case when typcategory = 'A' then typelem else typbasetype end::text,
		typtypmod::text, typrelid::text, typdelim::text]) from pg_type where oid = %d`, oid)
	element, mod, relation := number(s.t, row[2]), number(s.t, row[3]), number(s.t, row[4])
	t.Name = row[0]
	switch {
	case row[1] == "e":
		t.Kind, t.Labels = mask.Enum, s.strings("select enumlabel from pg_enum where enumtypid = %d", oid)
	case row[1] == "c":
		t.Kind = mask.Composite
		for _, line := range s.strings(`select format('%%s %%s %%s', attname, atttypid, atttypmod) from pg_attribute
			where attrelid = %d and attnum > 0 and not attisdropped order by attnum`, relation) {
			f := strings.Fields(line)
			t.Fields = append(t.Fields, mask.Field{Name: f[0], Type: s.typeOf(uint32(number(s.t, f[1]))), Mod: int32(number(s.t, f[2]))})
		}
	case row[1] == "d":
		t.Kind, t.Element, t.Mod = mask.Domain, s.typeOf(uint32(element)), int32(mod)
	case row[1] == "r":
		t.Kind = mask.Range
		t.Element = s.typeOf(uint32(number(s.t, s.strings("select rngsubtype from pg_range where rngtypid = %d", oid)[0])))
	case row[1] == "m":
		t.Kind = mask.Multirange
		t.Element = s.typeOf(uint32(number(s.t, s.strings("select rngtypid from pg_range where rngmultitypid = %d", oid)[0])))
	case element != 0:
		t.Kind, t.Element, t.Delimiter = mask.Array, s.typeOf(uint32(element)), row[5][0]
	}
	return t
}

func number(t testing.TB, text string) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(text, &n); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return n
}
