package postgres

import (
	"slices"
	"strings"
	"testing"
)

func TestErrorsAndNoticesTellNoMaskedValue(t *testing.T) {
	w := newMaskedWorld(t)
	w.server.Exec("CREATE TABLE parents (secret text PRIMARY KEY)", "GRANT ALL ON parents TO PUBLIC",
		"CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'the secret is %', OLD.secret; RETURN NEW; END $$",
		"CREATE TRIGGER told BEFORE UPDATE OF note ON people FOR EACH ROW EXECUTE FUNCTION told()")
	for _, c := range []struct {
		name, code string
		batches    int
		send       []string
	}{
		{"a cast that fails", "22P02", 1, []string{qry("SELECT secret::integer FROM people")}},
		{"a cast that fails, extended", "22P02", 1, []string{prs("", "SELECT secret::integer FROM people"), bnd("", ""), exe(""), syn}},
		{"a value that exists already", "23505", 1, []string{qry("INSERT INTO people (id, secret) VALUES (1000, '" + "canary-7f3" + "' || 'a9-1')")}},
		{"a key that exists already", "23505", 1, []string{qry("INSERT INTO people (id) VALUES (1)")}},
		{"a check with the failing row", "23514", 1, []string{qry("UPDATE people SET secret = repeat('x', 1000) WHERE id = 1")}},
		{"a notice of a trigger", "", 1, []string{qry("UPDATE people SET note = 'x' WHERE id = 1")}},
		{"an error after what was read in the transaction", "22012", 3, []string{qry("BEGIN"), qry("SELECT secret FROM people LIMIT 1"), qry("SELECT 1/0")}},
		{"an error in a row that comes late", "22P02", 1, []string{qry("SELECT CASE WHEN id < 20 THEN 1 ELSE secret::integer END FROM people ORDER BY id")}},
		{"an error at Bind, in what is constant", "22P02", 1, []string{prs("", "SELECT secret FROM people WHERE id = $1"), mk(msgBind, "\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01x\x00\x00"), exe(""), syn}},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := w.connect(t, secretsMasked)
			answer := client.ask(c.batches, c.send...)
			if form := told(answer); form != "" {
				t.Fatalf("the client got %s in %q", form, answer)
			}
			var last string
			for _, v := range valuesOf(answer) {
				if strings.Contains(v, "sallyport: ") {
					last = v
				}
			}
			if c.code != "" && !strings.HasPrefix(last, c.code+" sallyport: ") {
				t.Errorf("got %q, want %s", valuesOf(answer), c.code)
			}
			if strings.Contains(last, "masking") {
				t.Errorf("it was denied: %s", last)
			}
		})
	}
	t.Run("names that the catalog has stay", func(t *testing.T) {
		answer := w.connect(t, secretsMasked).query("INSERT INTO people (id) VALUES (1)")
		for _, want := range []string{"spublic\x00", "tpeople\x00", "npeople_pkey\x00"} {
			if !strings.Contains(string(answer), want) {
				t.Errorf("%q is not in %q", want, answer)
			}
		}
	})
	t.Run("other errors come as they are", func(t *testing.T) {
		for _, text := range []string{"SELECT word::integer FROM plain WHERE id = 1", "BEGIN; SELECT missing_column FROM plain"} {
			answer := w.connect(t, secretsMasked).query(text)
			if got := strings.Join(valuesOf(answer), " "); strings.Contains(got, "sallyport") || !strings.Contains(got, "word 1") && !strings.Contains(got, "missing_column") {
				t.Errorf("%s: %q", text, got)
			}
		}
	})
}

func TestNotificationsComeWithoutPayload(t *testing.T) {
	w := newMaskedWorld(t)
	c := w.connect(t, secretsMasked)
	c.query("LISTEN news")
	if _, err := w.direct(t).Exec(t.Context(), "SELECT pg_notify('news', $1)", canary); err != nil {
		t.Fatal(err)
	}
	answer := c.query("SELECT 1")
	if told(answer) != "" || !strings.Contains(string(answer), "news\x00\x00") {
		t.Errorf("got %q", answer)
	}
}

func TestWhatCanNotBeMaskedIsDenied(t *testing.T) {
	w := newMaskedWorld(t)
	for _, c := range []struct{ name, send, reason string }{
		{"storing it elsewhere", qry("INSERT INTO plain SELECT id + 100, secret FROM people"), ""},
		{"a table made of it", qry("CREATE TABLE copied AS SELECT * FROM people"), ""},
		{"a table made of a prepared statement", qry("PREPARE a AS SELECT secret FROM people; CREATE TABLE copied AS EXECUTE a"), ""},
		{"a plan of a prepared statement", qry("PREPARE a AS SELECT secret FROM people; EXPLAIN (ANALYZE, VERBOSE) EXECUTE a"), ""},
		{"a condition on a mask that is not to be guessed at", qry("SELECT id FROM people WHERE secret_number = 4242424243"), "WHERE"},
		{"a large object", mk(msgFunctionCall, uint32Bytes(954), "\x00\x00\x00\x02\x00\x04aaaa"), "can not be masked"},
		{"a DO block", qry("DO $$ BEGIN RAISE NOTICE '%', (SELECT secret FROM people LIMIT 1); END $$"), ""},
		{"a form of COPY that can not be told", qry("COPY people TO STDOUT (ENCODING 'SJIS')"), "form of the data"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := w.connect(t, secretsMasked)
			answer := client.ask(1, c.send)
			got := strings.Join(valuesOf(answer), " ")
			if told(answer) != "" || !strings.Contains(got, "42501 sallyport: denied by rule \"masking\"") || !strings.Contains(got, c.reason) {
				t.Errorf("got %q", answer)
			}
			if values := valuesOf(client.query("SELECT word FROM plain WHERE id = 1")); !slices.Equal(values, []string{"word 1"}) {
				t.Errorf("the session gives %q afterwards", values)
			}
			if ops := client.wire.judge.ops; len(ops) == 0 || !slices.ContainsFunc(ops, func(o string) bool { return strings.Contains(o, " deny ") }) {
				t.Errorf("recorded: %q", ops)
			}
		})
	}
}

func TestTheCatalogIsFollowed(t *testing.T) {
	w := newMaskedWorld(t)
	t.Run("a table that the session makes", func(t *testing.T) {
		c := w.connect(t, secretsMasked)
		c.query("CREATE TABLE made (id integer, word text)")
		c.query("INSERT INTO made VALUES (1, 'mine')")
		if got := valuesOf(c.query("SELECT word, word || '!' FROM made")); !slices.Equal(got, []string{"mine", "mine!"}) {
			t.Errorf("got %q", got)
		}
	})
	t.Run("a table that the open transaction makes", func(t *testing.T) {
		c := w.connect(t, secretsMasked)
		got := valuesOf(c.query("BEGIN; CREATE TABLE soon (id integer, word text); INSERT INTO soon VALUES (1, 'mine')"))
		if got = append(got, valuesOf(c.query("SELECT word FROM soon"))...); !slices.Equal(got, []string{"mine"}) {
			t.Errorf("got %q", got)
		}
		c.query("ROLLBACK")
	})
	t.Run("a table that somebody else makes", func(t *testing.T) {
		c := w.connect(t, secretsMasked)
		c.query("SELECT 1")
		if _, err := w.direct(t).Exec(t.Context(), "CREATE TABLE others AS SELECT 'theirs' AS word; GRANT ALL ON others TO PUBLIC"); err != nil {
			t.Fatal(err)
		}
		w.pictures.last.Load().ended = w.pictures.last.Load().ended.Add(-missedAge)
		if got := valuesOf(c.query("SELECT word FROM others")); !slices.Equal(got, []string{"theirs"}) {
			t.Errorf("got %q", got)
		}
	})
	t.Run("a catalog that can not be read", func(t *testing.T) {
		c := w.connect(t, secretsMasked)
		c.wire.machine.pictures = unreadable{}
		if got := strings.Join(valuesOf(c.query("SELECT 1")), " "); !strings.Contains(got, "42501") || !strings.Contains(got, "catalog") {
			t.Errorf("got %q", got)
		}
	})
}

func TestMasksThatComeWhileASessionLives(t *testing.T) {
	w := newMaskedWorld(t)
	c := w.connect(t, nil)
	if got := valuesOf(c.ask(2, prs("s", "SELECT secret FROM people WHERE id = 1"), bnd("", "s"), exe(""), syn, qry("BEGIN"))); !slices.Equal(got, []string{canary + "-1"}) {
		t.Fatalf("without masks: %q", got)
	}
	c.wire.judge.masks, c.wire.judge.revision = secretsMasked, 1
	answer := c.ask(1, bnd("", "s"), exe(""), syn)
	if got := strings.Join(valuesOf(answer), " "); told(answer) != "" || !strings.Contains(got, "26000") {
		t.Errorf("what was prepared before gives %q", got)
	}
	answer = c.ask(2, qry("ROLLBACK"), qry("SELECT secret FROM people WHERE id = 1"))
	if got := valuesOf(answer); !slices.Equal(got, []string{stars}) {
		t.Errorf("with masks: %q", got)
	}
	c.wire.judge.masks, c.wire.judge.revision = nil, 2
	if got := valuesOf(c.query("SELECT secret FROM people WHERE id = 1")); !slices.Equal(got, []string{canary + "-1"}) {
		t.Errorf("without masks again: %q", got)
	}
}
