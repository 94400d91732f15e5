package postgres

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

// texts are what the fuzzed client says. None is part of another, and none has literals.
var texts = []string{
	"SELECT a FROM t", "SELECT b FROM t", "DELETE FROM t", "SELECT fails FROM t", "garbage (", "BEGIN", "COMMIT", "ROLLBACK",
	"COPY t FROM STDIN", "COPY missing FROM STDIN", "PREPARE s AS SELECT c FROM t", "DEALLOCATE s", "EXECUTE s", "DEALLOCATE ALL",
	"DEALLOCATE s; PREPARE s AS SELECT d FROM t; SELECT fails FROM t", "FETCH ALL FROM p", "", "PREPARE r AS DELETE FROM t",
	"PREPARE s AS SELECT e FROM t; EXECUTE s", "SELECT f FROM t; DELETE FROM t", "EXECUTE r", "COPY t FROM STDIN; SELECT g FROM t",
}

var nameChoices = []string{"", "s", "r", "p"}

// clientMessage is the message that a byte stands for, of kind and choice.
func clientMessage(kind, choice byte) string {
	name, other := nameChoices[choice%4], nameChoices[choice>>2%4]
	text := texts[int(choice)%len(texts)]
	switch kind % 16 {
	case 0, 1:
		return qry(text)
	case 2:
		return prs(nameChoices[choice>>6], text)
	case 3:
		return prs(name, texts[int(choice>>2)%len(texts)])
	case 4, 5:
		return bnd(name, other)
	case 6, 7:
		return exe(name)
	case 8:
		return dsc("SP"[choice&1:choice&1+1], other)
	case 9:
		return cls("SP"[choice&1:choice&1+1], other)
	case 10, 11:
		return syn
	case 12:
		return flsh
	case 13:
		return data
	case 14:
		return dn
	default:
		return fail
	}
}

// play lets a client say what program says to a model server, through a machine, with messages and answers under way in any order.
func play(t testing.TB, program []byte) {
	w, server := newWire(), newModelServer()
	copies := false
	move := func(answers int) {
		server.in = append(server.in, w.toServer...)
		w.toServer = nil
		n := min(answers, len(server.out))
		bytes := string(server.out[:n])
		server.out = server.out[n:]
		if len(bytes) > 0 && w.err == nil {
			w.server(bytes)
		}
	}
	for i := 0; i+1 < len(program) && w.err == nil; i += 2 {
		switch kind, choice := program[i], program[i+1]; kind >> 4 % 4 {
		case 0, 1:
			message := clientMessage(kind, choice)
			copies = copies || strings.Contains(message, "COPY")
			w.client(message)
		case 2:
			move(0)
			for range choice % 8 {
				server.step()
			}
		case 3:
			move(int(choice))
		}
		w.check(t)
	}
	// In the end the client finishes what it has begun, and the server answers all.
	settle := func() {
		for w.err == nil && (len(w.toServer) > 0 || len(server.out) > 0 || server.step()) {
			move(len(server.out))
		}
	}
	settle()
	for range 3 {
		if w.err == nil && server.copying {
			w.client(dn)
		}
		if w.err == nil {
			w.client(syn)
		}
		settle()
	}
	if server.gone && !copies {
		t.Fatal("the server got what no client may send")
	}
	switch {
	case w.err != nil && copies && (errors.Is(w.err, errProtocol) || strings.Contains(w.err.Error(), "copy data while")):
		// The client sent other messages in the middle of COPY.
	case w.err != nil:
		t.Fatalf("the session ended: %v", w.err)
	case server.gone:
	case w.due.n != 0 || w.paused || len(w.fromC) != 0:
		t.Fatalf("%d answers are due in the end, paused %v, %d bytes unread", w.due.n, w.paused, len(w.fromC))
	case w.status != server.tx:
		t.Fatalf("transaction status %c, want %c", w.status, server.tx)
	}
	w.Abandon()
	compareRecord(t, w.judge, server)
}

// compareRecord checks that what the server has run was allowed and recorded, and everything as often.
func compareRecord(t testing.TB, judge *fakeJudge, server *modelServer) {
	ran := map[string]int{}
	for _, text := range server.ran {
		if strings.HasPrefix(text, "DELETE") {
			t.Fatalf("the server ran %s", text)
		}
		ran[text]++
	}
	for text, times := range ran {
		recorded := 0
		for _, op := range judge.ops {
			if strings.Contains(op, " allow ") && strings.Contains(op, text) {
				recorded++
			}
		}
		if recorded < times {
			t.Fatalf("%q ran %d times and was recorded %d times: %s", text, times, recorded, strings.Join(judge.ops, " | "))
		}
	}
	finished := map[string]bool{}
	for _, result := range judge.results {
		number, _, _ := strings.Cut(result, " ")
		if finished[number] {
			t.Fatalf("operation %s ended twice", number)
		}
		finished[number] = true
	}
}

func TestRandomConversationsAreDecidedAndRecordedWhole(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		program := make([]byte, 2+random.IntN(80))
		for i := range program {
			program[i] = byte(random.Uint32())
		}
		play(t, program)
	}
}

func FuzzConversation(f *testing.F) {
	f.Add([]byte{0, 5, 3, 0, 4, 0, 0x20, 7, 0x30, 255, 6, 0, 10, 0})
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyz"))
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) <= 400 {
			play(t, program)
		}
	})
}

// FuzzBytes gives both ends bytes of any kind: nothing panics, nothing denied is forwarded, and splitting changes nothing.
func FuzzBytes(f *testing.F) {
	f.Add([]byte(qry("SELECT 1")+prs("", "DELETE FROM t")+bnd("", "")+exe("")+syn), []byte(tag("SELECT 1")+idleNow+errMsg("42601")+idleNow))
	f.Add([]byte(qry("COPY t FROM STDIN")+data+dn+mk(msgFunctionCall, uint32Bytes(953))), []byte(copyIn+tag("COPY 1")+idleNow+setting1+notice+row))
	f.Add([]byte("Q\x00\x00\x00\x03"), []byte("Z\x00\x00\x00\x04"))
	f.Fuzz(func(t *testing.T, client, server []byte) {
		whole, split := newWire(), newWire()
		split.bytewise = true
		for _, w := range []*wire{whole, split} {
			w.client(string(client))
			w.check(t)
			if w.err == nil {
				w.server(string(server))
				w.check(t)
			}
			if strings.Contains(string(w.toServer), "DELETE FROM t\x00") && strings.Contains(strings.Join(w.judge.ops, "\n"), "deny DELETE FROM t") {
				for _, m := range messagesOf(w.toServer) {
					if (m[0] == msgQuery || m[0] == msgParse) && strings.Contains(m, "DELETE FROM t\x00") {
						t.Fatalf("forwarded %q", m)
					}
				}
			}
			w.Abandon()
		}
		if (whole.err == nil) != (split.err == nil) {
			t.Fatalf("whole: %v, split: %v", whole.err, split.err)
		}
		if whole.err == nil && string(whole.toServer) != string(split.toServer) {
			t.Fatalf("whole: %q, split: %q", whole.toServer, split.toServer)
		}
	})
}

// messagesOf takes messages apart.
func messagesOf(p []byte) (messages []string) {
	for len(p) >= headerSize {
		_, size, ok := header(p)
		if !ok || size > len(p) {
			return messages
		}
		messages = append(messages, string(p[:size]))
		p = p[size:]
	}
	return messages
}
