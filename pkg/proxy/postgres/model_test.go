package postgres

import (
	"strings"
)

// A modelServer answers as PostgreSQL does, as far as the protocol is concerned: it skips to Sync after an error, ignores Sync and
// Flush while it reads CopyData, drops portals with their transaction, holds answers back until they are flushed. It remembers what it has run.
type modelServer struct {
	in         []byte // what has come and is not processed
	held, out  []byte // answers, and those that are flushed
	statements map[string]string
	portals    map[string]*modelPortal
	tx         byte // 'I', 'T' or 'E'
	skipping   bool
	copying    bool
	simpleCopy []string // statements that follow the COPY of a Query
	gone       bool     // a message came that ends the session
	ran        []string
}

// A modelPortal is a portal; what ran once gives no more rows.
type modelPortal struct {
	text string
	done bool
}

func newModelServer() *modelServer {
	return &modelServer{statements: map[string]string{}, portals: map[string]*modelPortal{}, tx: 'I'}
}

// step processes one message; it is false when none has come wholly.
func (s *modelServer) step() bool {
	if len(s.in) < headerSize || s.gone {
		return false
	}
	typ, size, ok := header(s.in)
	if !ok {
		s.gone = true
		return false
	}
	if len(s.in) < size {
		return false
	}
	body := s.in[headerSize:size]
	s.in = s.in[size:]
	switch {
	case s.copying:
		s.duringCopy(typ)
	case s.skipping && typ != msgSync:
	case typ == msgQuery:
		s.query(strings.TrimSuffix(string(body), "\x00"))
	default:
		s.extended(typ, &reader{p: body})
	}
	return true
}

func (s *modelServer) say(messages ...string) {
	for _, m := range messages {
		s.held = append(s.held, m...)
	}
}

func (s *modelServer) flush() {
	s.out = append(s.out, s.held...)
	s.held = nil
}

func (s *modelServer) ready() {
	s.say(mk(msgReadyForQuery, string(s.tx)))
	s.flush()
}

// fail is an error; in a simple Query the caller says ReadyForQuery next.
func (s *modelServer) fail(code string) {
	s.say(errMsg(code))
	s.flush()
	if s.tx == 'T' {
		s.tx = 'E'
	}
	clear(s.portals)
}

func (s *modelServer) failExtended(code string) {
	s.fail(code)
	s.skipping = true
}

func (s *modelServer) endTransaction() {
	s.tx = 'I'
	clear(s.portals)
}

func (s *modelServer) duringCopy(typ byte) {
	simple := s.simpleCopy != nil
	switch typ {
	case msgCopyData, msgFlush, msgSync:
		return
	case msgCopyDone:
		s.copying = false
		s.say(tag("COPY 1"))
		if simple {
			s.runAll(s.simpleCopy)
		}
	case msgCopyFail:
		s.copying = false
		if simple {
			s.simpleCopy = nil
			s.fail("57014")
			s.ready()
		} else {
			s.failExtended("57014")
		}
	default:
		s.gone = true
	}
}

func (s *modelServer) query(text string) {
	delete(s.statements, "")
	delete(s.portals, "")
	if broken(text) {
		s.fail("42601")
		s.ready()
		return
	}
	if text == "" {
		s.say(mk(msgEmptyQuery))
		s.ready()
		return
	}
	s.runAll(strings.Split(text, "; "))
}

// runAll runs what is left of a Query.
func (s *modelServer) runAll(texts []string) {
	s.simpleCopy = nil
	for i, text := range texts {
		code := s.run(text)
		if code == "copy" {
			s.copying, s.simpleCopy = true, texts[i+1:]
			if s.simpleCopy == nil {
				s.simpleCopy = []string{}
			}
			s.say(copyIn)
			s.flush()
			return
		}
		if code != "" {
			s.fail(code)
			s.ready()
			return
		}
		s.say(tag("SELECT 0"))
	}
	if s.tx == 'I' {
		clear(s.portals)
	}
	s.ready()
}

// broken is true for what no parser takes.
func broken(text string) bool {
	return strings.HasPrefix(text, "sallyport") || strings.HasPrefix(text, "garbage")
}

// run runs one statement and gives its error's code, or "copy".
func (s *modelServer) run(text string) string {
	words := strings.Fields(text)
	if s.tx == 'E' && words[0] != "ROLLBACK" && words[0] != "COMMIT" {
		return "25P02"
	}
	s.ran = append(s.ran, text)
	switch words[0] {
	case "BEGIN":
		s.tx = 'T'
	case "COMMIT", "ROLLBACK":
		s.endTransaction()
	case "COPY":
		if words[1] == "missing" {
			return "42P01"
		}
		return "copy"
	case "PREPARE":
		if _, taken := s.statements[words[1]]; taken {
			return "42P05"
		}
		s.statements[words[1]] = strings.Join(words[3:], " ")
	case "DEALLOCATE":
		if words[1] == "ALL" {
			unnamed, had := s.statements[""]
			clear(s.statements)
			if had {
				s.statements[""] = unnamed
			}
			break
		}
		if _, found := s.statements[words[1]]; !found {
			return "26000"
		}
		delete(s.statements, words[1])
	case "EXECUTE":
		inner, found := s.statements[words[1]]
		if !found {
			return "26000"
		}
		if !strings.HasPrefix(inner, "SELECT") && !strings.HasPrefix(inner, "DELETE") {
			return "0A000"
		}
		return s.run(inner)
	case "FETCH":
		p := s.portals[words[3]]
		if p == nil {
			return "34000"
		}
		if !p.done {
			p.done = true
			s.ran = append(s.ran, p.text)
		}
	}
	if strings.Contains(text, "fails") {
		return "22012"
	}
	return ""
}

func (s *modelServer) extended(typ byte, r *reader) {
	switch typ {
	case msgParse:
		name, text := string(r.cstring()), string(r.cstring())
		if name == "" {
			delete(s.statements, "")
		}
		_, taken := s.statements[name]
		switch {
		case broken(text), strings.Contains(text, ";"):
			s.failExtended("42601")
		case s.tx == 'E' && text != "ROLLBACK" && text != "COMMIT":
			s.failExtended("25P02")
		case taken:
			s.failExtended("42P05")
		default:
			s.statements[name] = text
			s.say(parseOK)
		}
	case msgBind:
		name, statement := string(r.cstring()), r.cstring()
		text, found := s.statements[string(statement)]
		_, taken := s.portals[name]
		switch {
		case !found:
			s.failExtended("26000")
		case s.tx == 'E' && text != "ROLLBACK" && text != "COMMIT":
			s.failExtended("25P02")
		case taken && name != "":
			s.failExtended("42P03")
		default:
			s.portals[name] = &modelPortal{text: text}
			s.say(bindOK)
		}
	case msgDescribe:
		what, name := r.byte(), r.cstring()
		_, statement := s.statements[string(name)]
		_, portal := s.portals[string(name)]
		switch {
		case what == 'S' && statement:
			s.say(mk(msgParameterDescription, "\x00\x00"), mk(msgNoData))
		case what == 'P' && portal:
			s.say(mk(msgNoData))
		default:
			s.failExtended("26000")
		}
	case msgExecute:
		s.execute(string(r.cstring()))
	case msgClose:
		what, name := r.byte(), string(r.cstring())
		if what == 'S' {
			delete(s.statements, name)
		} else {
			delete(s.portals, name)
		}
		s.say(closeOK)
	case msgSync:
		s.skipping = false
		if s.tx == 'I' {
			clear(s.portals)
		}
		s.ready()
	case msgFlush:
		s.flush()
	case msgCopyData, msgCopyDone, msgCopyFail:
	default:
		s.gone = true
	}
}

func (s *modelServer) execute(name string) {
	p := s.portals[name]
	switch {
	case p == nil:
		s.failExtended("34000")
		return
	case p.done:
		s.say(tag("SELECT 0"))
		return
	case p.text == "":
		s.say(mk(msgEmptyQuery))
		return
	}
	p.done = true
	switch code := s.run(p.text); code {
	case "":
		s.say(row, tag("SELECT 1"))
	case "copy":
		s.copying = true
		s.say(copyIn)
		s.flush()
	default:
		s.failExtended(code)
	}
}
