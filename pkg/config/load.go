package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// Limits on what is read; far above what people write, far below what hurts.
const (
	MaxFileBytes  = 1 << 20
	MaxTotalBytes = 8 << 20
	MaxFiles      = 1000
)

// maxReads bounds how often a directory is read again because it changed under the reader.
const maxReads = 5

// Load reads every *.yaml and *.yml of a directory, not of those below it, in the order of their names; names that begin with
// a dot are left out. An empty directory is an empty Snapshot. The files are what Parse takes.
// The error is an *Error when documents or files are at fault.
func Load(dir string) (*Snapshot, []handoff.File, error) {
	files, unread, err := read(dir)
	if err != nil {
		return nil, nil, err
	}
	snapshot, err := Parse(files)
	if len(unread) == 0 {
		if err != nil {
			return nil, nil, err
		}
		return snapshot, files, nil
	}
	all := &Error{Problems: unread}
	var unsound *Error
	if errors.As(err, &unsound) {
		all.Problems = append(all.Problems, unsound.Problems...)
	}
	return nil, nil, all.orNil()
}

// read reads the files of one generation, and says which it could not read. Kubernetes mounts a ConfigMap as links through
// ..data, which it replaces by one rename: files read before and after that belong to different generations and are read again.
func read(dir string) ([]handoff.File, []Problem, error) {
	for range maxReads {
		before := generation(dir)
		files, unread, err := readOnce(dir)
		if generation(dir) == before {
			return files, unread, err
		}
	}
	return nil, nil, fmt.Errorf("read %s: it changed during each of %d reads", dir, maxReads)
}

// generation is the target of the ..data link, or "" without one.
func generation(dir string) string {
	target, err := os.Readlink(filepath.Join(dir, "..data"))
	if err != nil {
		return ""
	}
	return target
}

func readOnce(dir string) (files []handoff.File, unread []Problem, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("read the directory of documents: %w", err)
	}
	total := 0
	for _, entry := range entries {
		name := entry.Name()
		if extension := filepath.Ext(name); strings.HasPrefix(name, ".") || extension != ".yaml" && extension != ".yml" {
			continue
		}
		path := filepath.Join(dir, name)
		content, err := readFile(path)
		if errors.Is(err, unix.EISDIR) {
			continue
		}
		if err != nil {
			unread = append(unread, Problem{File: path, Message: err.Error()})
			continue
		}
		if total += len(content); total > MaxTotalBytes || len(files) == MaxFiles {
			return nil, nil, &Error{Problems: []Problem{{File: dir,
				Message: fmt.Sprintf("has too much; expected at most %d files of %d bytes together", MaxFiles, MaxTotalBytes)}}}
		}
		files = append(files, handoff.File{Path: path, Content: content})
	}
	return files, unread, nil
}

// readFile reads a regular file, through links. Its errors leave out the path. EISDIR is a directory.
func readFile(path string) ([]byte, error) {
	// O_NONBLOCK: opening a FIFO must not wait for a writer.
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, cause(err)
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, cause(err)
	case info.IsDir():
		return nil, unix.EISDIR
	case !info.Mode().IsRegular():
		return nil, errors.New("is no regular file")
	}
	content, err := io.ReadAll(io.LimitReader(file, MaxFileBytes+1))
	if err != nil {
		return nil, cause(err)
	}
	if len(content) > MaxFileBytes {
		return nil, fmt.Errorf("is too large; expected at most %d bytes", MaxFileBytes)
	}
	return content, nil
}

// cause drops the path, which a Problem names already.
func cause(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}
