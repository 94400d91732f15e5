package sql

import (
	"strings"
	"testing"
)

func TestSecretsAreGoneFromFullAndNormalisedText(t *testing.T) {
	for _, text := range []string{
		"ALTER ROLE x PASSWORD 'geheim'",
		"ALTER ROLE x WITH LOGIN ENCRYPTED PASSWORD 'ge''heim' VALID UNTIL 'infinity'",
		"CREATE USER x PASSWORD E'ge\\x68heim'",
		"CREATE ROLE x PASSWORD $$geheim$$",
		"CREATE ROLE x PASSWORD $a$ge heim$a$",
		"CREATE ROLE x PASSWORD U&'g\\0065heim'",
		"CREATE ROLE x /* c */ PASSWORD -- d\n 'geheim'",
		"SELECT 1; ALTER USER x PASSWORD 'geheim'; SELECT 2",
		"CREATE USER MAPPING FOR u SERVER s OPTIONS (user 'a', password 'geheim')",
		"ALTER USER MAPPING FOR u SERVER s OPTIONS (SET password 'geheim')",
		"CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (host 'h', \"api_key\" 'geheim')",
		"CREATE FOREIGN TABLE t (a int) SERVER s OPTIONS (secret_access_key 'geheim')",
		"CREATE SUBSCRIPTION s CONNECTION 'host=x password=geheim' PUBLICATION p",
		"CREATE SUBSCRIPTION s CONNECTION 'service=geheim' PUBLICATION p",
		"ALTER SUBSCRIPTION s CONNECTION 'postgres://u:geheim@h/d'",
		"SELECT * FROM dblink('host=x password=geheim', 'SELECT 1') AS t(a int)",
		"SELECT public.dblink_connect('c', 'postgres://u:geheim@h/d')",
		"SELECT dblink_exec(concat('pass', 'geheim'), lower('geheim')) FROM t WHERE a = 1",
		`SELECT "dblink"('geheim', 'x')`,
		"ALTER SYSTEM SET primary_conninfo = 'host=x geheim'",
		"SET app.secret = 'geheim'",
		"SET app.api_token TO geheim",
		`SET LOCAL "app.password" TO "geheim", 'geheim', 1`,
		"ALTER ROLE x SET app.secret = geheim",
		"SELECT set_config('app.secret', 'geheim', true)",
		"SELECT pg_catalog.set_config('app.jwt_token', 'ge' || 'heim', true)",
		"PREPARE p AS SELECT dblink_connect('geheim')",
		"EXPLAIN SELECT dblink_connect('geheim')",
		"EXPLAIN ANALYZE SELECT set_config('my.password', 'geheim', false)",
		"DO $$ BEGIN ALTER ROLE x PASSWORD 'geheim'; END $$",
		"DO 'BEGIN EXECUTE ''ALTER ROLE x PASSword ''''geheim''''''; END'",
		"DO E'BEGIN ALTER ROLE x PASS\\x57ORD ''geheim''; END'",
		"CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$ ALTER ROLE x PASSWORD 'geheim' $$",
		"COPY t FROM PROGRAM 'curl https://u:geheim@h/'",
	} {
		script, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		for what, safe := range map[string]string{"redacted": script.RedactedText(text), "normalised": script.Normalised} {
			if strings.Contains(safe, "geheim") || strings.Contains(safe, "heim'") || strings.Contains(safe, "heim$") {
				t.Errorf("%s text keeps a secret: %s", what, safe)
			}
		}
		if script.plain {
			t.Errorf("%s: taken for plain", text)
		}
	}
}

func TestTextWithoutSecretsIsKeptWhole(t *testing.T) {
	for _, text := range []string{
		"SELECT * FROM t WHERE name = 'x' -- why\n AND token = 'y'",
		"UPDATE users SET password_hash = 'x' WHERE id = 1",
		"CREATE ROLE x LOGIN VALID UNTIL '2030-01-01'",
		"ALTER ROLE x PASSWORD NULL",
		"SET work_mem = '1GB'",
		"SELECT set_config('work_mem', '1GB', true)",
		"DO $$ BEGIN DELETE FROM t; END $$",
		"CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (host 'h')",
	} {
		script, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := script.RedactedText(text); got != text {
			t.Errorf("%s became %s", text, got)
		}
	}
}

func TestRedactionKeepsTheRestOfTheText(t *testing.T) {
	const text = "CREATE ROLE x /* c */ PASSWORD 'geheim' VALID UNTIL '2030-01-01'; SELECT 1"
	const want = "CREATE ROLE x /* c */ PASSWORD '<redacted>' VALID UNTIL '2030-01-01'; SELECT 1"
	script, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := script.RedactedText(text); got != want {
		t.Errorf("got %s", got)
	}
}

func TestTextThatDoesNotParseIsRecordedByItsFirstWord(t *testing.T) {
	tests := []struct{ text, want string }{
		{"alter ROLE x PASWORD 'geheim'", "<unparsed: ALTER, 29 bytes>"},
		{" /* geheim */ Select", "<unparsed: SELECT, 20 bytes>"},
		{"geheim SELECT", "<unparsed: unknown, 13 bytes>"},
		{"'SELECT'", "<unparsed: unknown, 8 bytes>"},
		{"/* open", "<unparsed: unknown, 7 bytes>"},
		{"", "<unparsed: unknown, 0 bytes>"},
		{"\x00", "<unparsed: unknown, 1 bytes>"},
	}
	for _, tt := range tests {
		if got := RedactUnparsed(tt.text); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.text, got, tt.want)
		}
	}
}
