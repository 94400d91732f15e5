package record

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// A scan is what a session's file holds, up to its end or to the first line that is not as it was written.
type scan struct {
	id       string
	file     string // that it ends in, relative to the state directory
	line     int    // of the last event, in file
	moved    bool   // it goes on in its own file
	missing  bool   // file is not there
	first    hash   // of the first event
	chain    chain  // behind the last event, the seal not counted
	size     int64  // of file's sound lines
	torn     int64  // bytes of an incomplete line behind them
	began    time.Time
	ended    time.Time // of the last event
	open     openEvent
	totals   Totals // counted
	ending   *Ending
	seal     *sealEvent // nil while the session is not sealed
	sealedAt time.Time
	fault    *Fault
}

// onlyBegun is true when the session has no event but those that Begin writes, all at one time, or not even them.
func (s *scan) onlyBegun() bool {
	return s.fault == nil && s.seal == nil && s.totals.Operations == 0 && s.ended.Equal(s.began)
}

// readOwn reads the session's own file. An error is one of the file system; what is wrong with the content is the scan's fault.
func (s *scan) readOwn(dir string, lines *lineReader) error {
	s.file, s.line, s.size, s.torn, s.moved = sessionFile(s.id), 0, 0, 0, false
	file, err := os.Open(sessionPath(dir, s.id))
	if errors.Is(err, fs.ErrNotExist) {
		s.lose()
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	lines.reset(file)
	for s.fault == nil {
		line, err := lines.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errTorn):
			// A live session may have grown since.
			s.torn = max(info.Size()-s.size, 1)
			if s.seal != nil {
				s.fail(lines.number+1, errors.New("something follows the seal"))
			}
			return nil
		case errors.Is(err, errTooLong):
			s.fail(lines.number, err)
		case err != nil:
			return err
		default:
			s.take(line, lines.number)
			s.size = lines.offset
		}
	}
	return nil
}

// take takes the next line, which stands in file.
func (s *scan) take(line []byte, number int) {
	if err := s.add(line); err != nil {
		s.fail(number, err)
		return
	}
	s.line = number
}

// lose says that file is not there.
func (s *scan) lose() {
	s.missing, s.fault = true, &Fault{File: s.file, Session: s.id, What: "it is missing"}
}

func (s *scan) fail(line int, err error) {
	s.fault = &Fault{File: s.file, Line: line, Session: s.id, What: err.Error()}
}

// add takes the next line.
func (s *scan) add(line []byte) error {
	switch {
	case s.seal != nil:
		return errors.New("something follows the seal")
	case s.moved:
		return errors.New("the session had gone on in a file of its own")
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
	case typeContinued:
		if s.file == sessionFile(s.id) {
			return errors.New("it is a continued event, which does not stand here")
		}
		s.moved = true
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
	fault := &Fault{File: s.file, Session: s.id}
	switch {
	case s.fault != nil:
		return s.fault
	case s.chain.seq == 0:
		fault.What = "it has no event"
	case s.first != first:
		fault.Line, fault.What = 1, "it is not the event that the ledger has as the session's first"
	case s.seal != nil && s.signs() && !signed(key, s.text(), s.seal.Signature):
		fault.Line, fault.What = s.line, "the signature of the seal is not by the record's key"
	default:
		return nil
	}
	return fault
}

// signs is false for a seal that the ledger's signatures cover: it stands in a shared file, and has none.
func (s *scan) signs() bool { return len(s.seal.Signature) > 0 || s.file == sessionFile(s.id) }

// sealLine is what the ledger says of the session when it is sealed; else nil.
func (s *scan) sealLine() *sealLine {
	if s.seal == nil {
		return nil
	}
	return &sealLine{
		Session: s.id, Ending: *s.ending, Events: s.seal.Events, Last: s.seal.Last, Sealed: timeText(s.sealedAt),
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
	// No further: writers may be faster than this reader.
	lines.reset(io.NewSectionReader(file, 0, info.Size()))
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
