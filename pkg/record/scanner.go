package record

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// A scanner scans sessions wherever they are. A shared file is read once for all of its sessions, and again only from where it had
// ended.
type scanner struct {
	dir    string
	lines  *lineReader
	shared map[string]*sharedScan
}

func newScanner(dir string, lines *lineReader) *scanner {
	return &scanner{dir: dir, lines: lines, shared: map[string]*sharedScan{}}
}

// A sharedScan is what a shared file holds, up to its end.
type sharedScan struct {
	name     string
	size     int64 // of the whole lines
	number   int   // of the last of them
	torn     int64
	faults   []Fault // lines that are no session's
	sessions map[string]*scan
}

// session scans one. shared is the file that the ledger says it shares, or ""; sealed says that it is there to its end, or to
// where its writer died, so that what was read before may be too old.
func (c *scanner) session(id, shared string, sealed bool) (*scan, error) {
	if shared == "" {
		s := &scan{id: id, chain: sessionChain(id)}
		return s, s.readOwn(c.dir, c.lines)
	}
	f := c.of(shared)
	there := f.sessions[id]
	if there == nil || (sealed && there.seal == nil && !there.moved) {
		err := f.refresh(c.dir, c.lines)
		if errors.Is(err, fs.ErrNotExist) {
			s := &scan{id: id, file: shared}
			s.lose()
			return s, nil
		}
		if err != nil {
			return nil, err
		}
		if there = f.sessions[id]; there == nil {
			return &scan{id: id, file: shared, chain: sharedChain(id), size: f.size, torn: f.torn}, nil
		}
	}
	s := *there
	s.size, s.torn = f.size, f.torn
	if s.moved && s.fault == nil {
		if err := s.readOwn(c.dir, c.lines); err != nil {
			return nil, err
		}
	}
	return &s, nil
}

// of is what is known of a shared file so far.
func (c *scanner) of(name string) *sharedScan {
	f, known := c.shared[name]
	if !known {
		f = &sharedScan{name: name, sessions: map[string]*scan{}}
		c.shared[name] = f
	}
	return f
}

// file scans a shared file to its present end.
func (c *scanner) file(name string) (*sharedScan, error) {
	f := c.of(name)
	return f, f.refresh(c.dir, c.lines)
}

// done forgets a session that is not asked for again.
func (c *scanner) done(id, shared string) {
	if f, ok := c.shared[shared]; ok {
		delete(f.sessions, id)
	}
}

// refresh reads what came since the last time.
func (f *sharedScan) refresh(dir string, lines *lineReader) error {
	file, err := os.Open(filepath.Join(dir, f.name))
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	f.torn = 0
	if info.Size() < f.size {
		f.faults = append(f.faults, Fault{File: f.name, What: fmt.Sprintf("it was cut to %d bytes while it was read", info.Size())})
		return nil
	}
	lines.reset(io.NewSectionReader(file, f.size, info.Size()-f.size))
	begin, number := f.size, f.number
	for {
		line, err := lines.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errTorn):
			f.torn = info.Size() - f.size
			return nil
		case errors.Is(err, errTooLong):
			f.faults = append(f.faults, Fault{File: f.name, Line: number + lines.number, What: err.Error()})
		case err != nil:
			return err
		default:
			f.take(line, number+lines.number)
		}
		f.size, f.number = begin+lines.offset, number+lines.number
	}
}

// take gives a line to its session.
func (f *sharedScan) take(line []byte, number int) {
	id := ownerOf(line)
	if id == "" {
		f.faults = append(f.faults, Fault{File: f.name, Line: number, What: "it names no session"})
		return
	}
	s, known := f.sessions[id]
	if !known {
		s = &scan{id: id, file: f.name, chain: sharedChain(id)}
		f.sessions[id] = s
	}
	if s.fault == nil {
		s.take(line, number)
	}
}

// sharedFiles are the shared files of a state directory, the oldest first; other is what else stands among them.
func sharedFiles(dir string) (names, other []string, err error) {
	entries, err := os.ReadDir(filepath.Join(dir, sharedName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil // it was written before there were any
	}
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if name := sharedName + "/" + e.Name(); validShared(name) {
			names = append(names, name)
		} else {
			other = append(other, name)
		}
	}
	return names, other, nil
}
