package record

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// A source is the files that hold a session's lines, in order: one that it shares, one of its own, or one after the other.
type source struct {
	id    string
	files []sourceFile
}

type sourceFile struct {
	*os.File
	name   string // relative to the state directory
	shared bool
}

// findSource opens what there is of a session; the error is ErrNotFound when that is nothing.
func findSource(dir, id string) (*source, error) {
	s := &source{id: id}
	own, err := os.Open(sessionPath(dir, id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		s.files = append(s.files, sourceFile{File: own, name: sessionFile(id)})
		if whole, err := s.beginsIn(0); err != nil || whole {
			return s, errors.Join(err, s.rewind())
		}
	}
	// A shared file is older than its sessions, and ids sort by time.
	names, _, err := sharedFiles(dir)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	for _, name := range slices.Backward(names) {
		if name > sharedName+"/"+id {
			continue
		}
		file, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.files = slices.Insert(s.files, 0, sourceFile{File: file, name: name, shared: true})
		there, err := s.beginsIn(0)
		if err != nil || there {
			return s, errors.Join(err, s.rewind())
		}
		file.Close()
		s.files = s.files[1:]
	}
	if len(s.files) == 0 {
		return nil, ErrNotFound
	}
	return s, s.rewind() // what is left of it
}

// beginsIn is true when the session's first event is in a file.
func (s *source) beginsIn(i int) (found bool, err error) {
	err = s.eachOf(s.files[i], func(h lineHead, _ []byte) (bool, error) {
		found = h.seq == 1
		return false, nil
	})
	var fault *Fault
	if errors.As(err, &fault) { // it begins with something else
		return !s.files[i].shared, nil
	}
	return found, err
}

func (s *source) rewind() error {
	for _, f := range s.files {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the files.
func (s *source) Close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.File.Close())
	}
	return errors.Join(errs...)
}

// each calls f for each complete line of the session until it is false.
func (s *source) each(f func(h lineHead, line []byte) (more bool, err error)) error {
	if err := s.rewind(); err != nil {
		return err
	}
	more := true
	for _, file := range s.files {
		err := s.eachOf(file, func(h lineHead, line []byte) (_ bool, err error) {
			more, err = f(h, line)
			return more, err
		})
		if err != nil || !more {
			return err
		}
	}
	return nil
}

func (s *source) eachOf(file sourceFile, f func(h lineHead, line []byte) (bool, error)) error {
	lines := newLineReader(file)
	mine := []byte(ownerPrefix + s.id + `"`)
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) || errors.Is(err, errTorn) {
			return nil
		}
		if file.shared && (errors.Is(err, errTooLong) || err == nil && !bytes.HasPrefix(line, mine)) {
			continue
		}
		var h lineHead
		if err == nil {
			h, err = parseHead(line)
		} else if !errors.Is(err, errTooLong) {
			return err
		}
		more := false
		if err == nil {
			more, err = f(h, line)
		}
		if err != nil {
			return &Fault{File: file.name, Line: lines.number, Session: s.id, What: err.Error()}
		}
		if !more {
			return nil
		}
	}
}
