package record

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// A scan is what a session's file holds, up to its end or to the first line that is not as it was written.
type scan struct {
	id       string
	first    hash  // of the first event
	chain    chain // behind the last event, the seal not counted
	size     int64 // of the sound lines
	torn     int64 // bytes of an incomplete line behind them
	began    time.Time
	ended    time.Time // of the last event
	open     openEvent
	totals   Totals // counted
	ending   *Ending
	seal     *sealEvent // nil while the session is not sealed
	sealedAt time.Time
	fault    *Fault
}

// onlyOpen is true when the session has no event but its first, or not even that.
func (s *scan) onlyOpen() bool { return s.fault == nil && s.chain.seq <= 1 && s.seal == nil }

// scanSession reads a session's file. An error is one of the file system; what is wrong with the content is the scan's fault.
func scanSession(dir, id string, lines *lineReader) (*scan, error) {
	file, err := os.Open(sessionPath(dir, id))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	lines.reset(file)
	s := &scan{id: id, chain: sessionChain(id)}
	for {
		line, err := lines.next()
		switch {
		case errors.Is(err, io.EOF):
			return s, nil
		case errors.Is(err, errTorn):
			// A live session may have grown since.
			s.torn = max(info.Size()-s.size, 1)
			if s.seal != nil {
				s.fault = &Fault{File: sessionFile(id), Line: lines.number + 1, Session: id, What: "something follows the seal"}
			}
			return s, nil
		case errors.Is(err, errTooLong):
		case err != nil:
			return nil, err
		default:
			err = s.add(line)
		}
		if err != nil {
			s.fault = &Fault{File: sessionFile(id), Line: lines.number, Session: id, What: err.Error()}
			return s, nil
		}
		s.size = lines.offset
	}
}

// add takes the next line.
func (s *scan) add(line []byte) error {
	if s.seal != nil {
		return errors.New("something follows the seal")
	}
	end := s.chain
	h, err := end.follow(line)
	if err != nil {
		return err
	}
	if (h.seq == 1) != (h.typ == typeOpen) {
		return fmt.Errorf("it is a %s event, which does not stand here", h.typ)
	}
	switch h.typ {
	case typeOpen:
		if err := decodeLine(line, &s.open); err != nil {
			return err
		}
		if s.open.Session != s.id || s.open.Version != formatVersion {
			return fmt.Errorf("it opens session %q in version %d, expected %s in %d", s.open.Session, s.open.Version, s.id, formatVersion)
		}
		s.first, s.began = end.hash, h.time
	case typeOperation:
		var op struct {
			Decision string `json:"decision"`
		}
		if err := decodeLine(line, &op); err != nil {
			return err
		}
		s.totals.Operations++
		if op.Decision != "allow" {
			s.totals.Denied++
		}
	case typeResult:
		var r struct {
			Rows  int64 `json:"rows"`
			Bytes int64 `json:"bytes"`
		}
		if err := decodeLine(line, &r); err != nil {
			return err
		}
		s.totals.Rows += r.Rows
		s.totals.Bytes += r.Bytes
	case typeClose:
		s.ending = new(Ending)
		if err := decodeLine(line, s.ending); err != nil {
			return err
		}
	case typeSeal:
		return s.addSeal(line, h)
	}
	s.chain, s.ended = end, h.time
	return nil
}

// addSeal takes the seal's line; whether its signature is the node's is for the caller to ask.
func (s *scan) addSeal(line []byte, h lineHead) error {
	var seal sealEvent
	if err := decodeLine(line, &seal); err != nil {
		return err
	}
	again := s.chain
	if !bytes.Equal(appendSeal(nil, &again, h.time, seal.Signature), line) {
		return errors.New("the seal does not fit the events before it")
	}
	if s.ending == nil {
		return errors.New("the seal has no close before it")
	}
	s.seal, s.sealedAt = &seal, h.time
	return nil
}

// check is what is wrong with the session, first being the hash that the ledger has of its first event; nil when it is sound.
func (s *scan) check(key ed25519.PublicKey, first hash) *Fault {
	fault := &Fault{File: sessionFile(s.id), Session: s.id}
	switch {
	case s.fault != nil:
		return s.fault
	case s.chain.seq == 0:
		fault.What = "it has no event"
	case s.first != first:
		fault.Line, fault.What = 1, "it is not the event that the ledger has as the session's first"
	case s.seal != nil && !signed(key, s.text(), s.seal.Signature):
		fault.Line, fault.What = int(s.chain.seq)+1, "the signature of the seal is not by the record's key"
	default:
		return nil
	}
	return fault
}

// line is what the ledger says of the sealed session.
func (s *scan) line() *sealLine {
	return &sealLine{
		Session: s.id, Ending: *s.ending, Events: s.seal.Events, Last: s.seal.Last, Sealed: string(appendTime(nil, s.sealedAt)),
		Signature: s.seal.Signature,
	}
}

// text is what the seal signs.
func (s *scan) text() []byte { return sealText(s.id, s.chain.seq, s.chain.hash, s.sealedAt) }

// A ledgerScan is what the ledger's file holds, up to its end or the first line that is not as it was written.
type ledgerScan struct {
	chain chain
	key   []byte // of the first line; nil while there is none
	size  int64
	torn  int64
	fault *Fault
	at    map[uint64]hash // of the lines that were asked for
}

// scanLedger reads the ledger's lines and hands each to visit, whose error is the line's fault. marks are numbers of lines
// whose hashes are wanted.
func scanLedger(file *os.File, lines *lineReader, visit func(h lineHead, line []byte) error, marks ...uint64) (*ledgerScan, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	lines.reset(file)
	s := &ledgerScan{chain: ledgerChain(), at: map[uint64]hash{0: ledgerChain().hash}}
	for {
		line, err := lines.next()
		switch {
		case errors.Is(err, io.EOF):
			return s, nil
		case errors.Is(err, errTorn):
			s.torn = max(info.Size()-s.size, 1)
			return s, nil
		case errors.Is(err, errTooLong):
		case err != nil:
			return nil, err
		default:
			err = s.add(line, visit)
		}
		if err != nil {
			s.fault = &Fault{File: ledgerName, Line: lines.number, What: err.Error()}
			return s, nil
		}
		s.size = lines.offset
		for _, mark := range marks {
			if s.chain.seq == mark {
				s.at[mark] = s.chain.hash
			}
		}
	}
}

func (s *ledgerScan) add(line []byte, visit func(h lineHead, line []byte) error) error {
	end := s.chain
	h, err := end.follow(line)
	if err != nil {
		return err
	}
	if (h.seq == 1) != (h.typ == typeKey) {
		return fmt.Errorf("it is a %s line, which does not stand here", h.typ)
	}
	if h.typ == typeKey {
		var key keyLine
		if err := decodeLine(line, &key); err != nil {
			return err
		}
		if key.Version != formatVersion {
			return fmt.Errorf("its version is %d, expected %d", key.Version, formatVersion)
		}
		s.key = key.Key
	}
	if err := visit(h, line); err != nil {
		return err
	}
	s.chain = end
	return nil
}

// covers says what the head covers that the ledger does not have.
func (s *ledgerScan) covers(h Head) error {
	last, err := parseHash(h.Last)
	if err != nil {
		return err
	}
	have, ok := s.at[h.Count]
	switch {
	case !ok && s.fault != nil:
		return fmt.Errorf("the head of %s covers %d lines, of which %d are sound", h.Time.Format(time.RFC3339), h.Count, s.chain.seq)
	case !ok:
		return fmt.Errorf("the head of %s covers %d lines, and there are %d: the ledger was cut short", h.Time.Format(time.RFC3339), h.Count, s.chain.seq)
	case have != last:
		return fmt.Errorf("line %d is not the one that the head of %s covers: the ledger was written anew", h.Count, h.Time.Format(time.RFC3339))
	}
	return nil
}
