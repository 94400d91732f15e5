package sql

/*
#cgo LDFLAGS: -Wl,--wrap=pipe -Wl,--wrap=dup -Wl,--wrap=dup2

// The parser's C code (pg_query_parse.c) points file descriptor 2 of the whole process at a pipe while it parses, to catch
// warnings. In a process with threads that loses log lines, and a write to such a pipe whose reader is gone kills the process. So
// the linker gives it these functions, which do nothing, in place of the C library's. Go's own libraries use neither.

int __wrap_pipe(int fds[2])
{
	fds[0] = fds[1] = -1;
	return 0;
}

int __wrap_dup(int fd)
{
	(void)fd;
	return -1;
}

int __wrap_dup2(int from, int to)
{
	(void)from;
	(void)to;
	return -1;
}
*/
import "C"
