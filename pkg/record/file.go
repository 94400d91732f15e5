package record

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// An appendFile is a file of whole lines.
type appendFile struct {
	file *os.File // opened with O_APPEND
	size int64    // of the lines that were written whole
	torn bool     // what is behind size could not be cut off
}

// append writes lines with one write(2), all or none of them: when the disk is full in their midst, what did get there is cut
// off, now or before the next lines. It allocates nothing when it succeeds.
func (a *appendFile) append(lines []byte) error {
	if a.torn {
		if err := a.cut(); err != nil {
			return err
		}
	}
	n, err := a.file.Write(lines)
	if err != nil {
		if n > 0 {
			a.torn = true
			_ = a.cut() // tried again by the next append
		}
		return err
	}
	a.size += int64(n)
	return nil
}

func (a *appendFile) cut() error {
	if err := a.file.Truncate(a.size); err != nil {
		return err
	}
	a.torn = false
	return nil
}

var (
	// errTorn says that the file ends without a newline.
	errTorn    = errors.New("the last line is not complete")
	errTooLong = fmt.Errorf("it is longer than %d bytes", maxLine)
)

// A lineReader reads complete lines.
type lineReader struct {
	r      *bufio.Reader
	number int   // of the last line
	offset int64 // behind the last line
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, maxLine)}
}

// reset turns to another file.
func (l *lineReader) reset(r io.Reader) {
	l.r.Reset(r)
	l.number, l.offset = 0, 0
}

// next is the next line with its newline, valid until the next call; io.EOF behind the last, errTorn when something
// incomplete follows it.
func (l *lineReader) next() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	long, size := errors.Is(err, bufio.ErrBufferFull), int64(len(line))
	for errors.Is(err, bufio.ErrBufferFull) {
		var more []byte
		more, err = l.r.ReadSlice('\n')
		size += int64(len(more))
	}
	switch {
	case err == nil && long:
		l.number++
		l.offset += size
		return nil, errTooLong
	case err == nil:
		l.number++
		l.offset += int64(len(line))
		return line, nil
	case errors.Is(err, io.EOF) && (long || len(line) > 0):
		return nil, errTorn
	default:
		return nil, err
	}
}

// replaceFile puts a whole file in the place of another, on disk when it returns.
func replaceFile(path string, content []byte, mode os.FileMode) error {
	if err := writeFile(path+".new", content, mode); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// writeFile writes a whole file, which is on disk when it returns.
func writeFile(path string, content []byte, mode os.FileMode) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Chmod(mode), file.Sync(), file.Close())
}

// syncDirectory puts the names in a directory on disk.
func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func sessionPath(dir, id string) string { return filepath.Join(dir, sessionsName, id, eventsName) }

// sessionFile is the same, relative to the state directory, as faults name it.
func sessionFile(id string) string { return filepath.Join(sessionsName, id, eventsName) }

// Names in the state directory.
const (
	sessionsName = "sessions"
	eventsName   = "events.jsonl"
	sharedName   = "shared"
	sharedSuffix = ".jsonl"
	ledgerName   = "ledger.jsonl"
	headName     = "ledger.head"
	keyName      = "record.key"
	publicName   = "record.pub"
	lockName     = "record.lock"
)
