package handoff

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// seals make a memfd immutable, so that its reader sees one content, whole, whatever its writer does next.
const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// sealed puts content into a sealed memfd; see memfd_create(2).
func sealed(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("sallyport", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("create a memfd: %w", err)
	}
	file := os.NewFile(uintptr(fd), "memfd")
	if _, err := file.Write(content); err != nil {
		file.Close()
		return nil, fmt.Errorf("fill a memfd: %w", err)
	}
	if _, err := unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		file.Close()
		return nil, fmt.Errorf("seal a memfd: %w", err)
	}
	return file, nil
}

// unsealed reads a sealed memfd of at most limit bytes. Anything else than a sealed memfd is refused: it could block the
// reader or change under it.
func unsealed(file *os.File, limit int64) ([]byte, error) {
	have, err := unix.FcntlInt(file.Fd(), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: no memfd: %w", errMessage, err)
	}
	if have&seals != seals {
		return nil, fmt.Errorf("%w: memfd is not sealed", errMessage)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%w: %d bytes of content are more than %d", errMessage, info.Size(), limit)
	}
	content := make([]byte, info.Size())
	if _, err := io.ReadFull(io.NewSectionReader(file, 0, info.Size()), content); err != nil {
		return nil, fmt.Errorf("read a memfd: %w", err)
	}
	return content, nil
}

// readRegular reads a regular file of at most maxFileBytes, through links. A FIFO or a device never blocks it.
func readRegular(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &os.PathError{Op: "read", Path: path, Err: errors.New("no regular file")}
	}
	if info.Size() > maxFileBytes {
		return nil, &os.PathError{Op: "read", Path: path, Err: fmt.Errorf("more than %d bytes", maxFileBytes)}
	}
	// One buffer of the right size: growing it would leave copies of a secret behind.
	content := make([]byte, info.Size()+1)
	n, err := io.ReadFull(file, content)
	switch {
	case err == nil:
		clear(content)
		return nil, &os.PathError{Op: "read", Path: path, Err: errors.New("it grew while it was read")}
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, err
	}
	return content[:n], nil
}
