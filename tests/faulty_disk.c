/* Makes calls that reach a disk fail, in every process that has it in LD_PRELOAD: see faulty_disk.py.
 *
 * The plan is a file that all of them map: which of the calls below fail, and how. Calls are counted
 * together, in whichever process they are made, if their file's path has `match` in it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { OPEN_TO_WRITE = 1, OPEN_TO_READ = 2, WRITE = 4, NAME = 8, SYNC = 16, ROOM = 32, FORK = 64 };
enum { SHORT = -1 }; /* instead of an error: a write takes half of what it is given */

struct plan {
	volatile int armed;
	volatile int error;
	volatile long first, last; /* the calls that fail, counted from 1 */
	volatile long calls, hits;
	volatile unsigned kinds;
	char match[256];
};

static struct plan *plan;

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void map_plan(void)
{
	const char *path = getenv("FAULTY_DISK_PLAN");
	int fd = path ? REAL(open)(path, O_RDWR | O_CLOEXEC) : -1;
	if (fd < 0)
		return;
	void *mapped = mmap(NULL, sizeof(struct plan), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mapped != MAP_FAILED)
		plan = mapped;
	close(fd);
}

/* What is to become of this call: 0, an error, or SHORT. */
static int fate(unsigned kind, const char *path)
{
	if (!plan || !plan->armed || !(plan->kinds & kind) || (path && !strstr(path, plan->match)))
		return 0;
	long call = __sync_add_and_fetch(&plan->calls, 1);
	if (call < plan->first || call > plan->last)
		return 0;
	__sync_add_and_fetch(&plan->hits, 1);
	return plan->error;
}

static int fate_of_fd(unsigned kind, int fd)
{
	char link[64], path[4096];
	if (!plan || !plan->armed)
		return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, sizeof path - 1);
	if (length < 0)
		return 0;
	path[length] = 0;
	return fate(kind, path);
}

/* A full disk takes what needs no further block. */
static int has_room(int fd, off_t end)
{
	struct stat status;
	return plan && plan->error == ENOSPC && fstat(fd, &status) == 0 &&
	       end <= ((status.st_size + 4095) & ~4095L);
}

#define FAIL_IF(failed)                     \
	do {                                \
		int failure = (failed);     \
		if (failure) {              \
			errno = failure;    \
			return -1;          \
		}                           \
	} while (0)

#define OPEN(name)                                                                         \
	int name(const char *path, int flags, ...)                                         \
	{                                                                                  \
		va_list arguments;                                                         \
		va_start(arguments, flags);                                                \
		mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0; \
		va_end(arguments);                                                         \
		int is_write = (flags & O_ACCMODE) != O_RDONLY;                            \
		FAIL_IF(fate(is_write ? OPEN_TO_WRITE : OPEN_TO_READ, path));              \
		return REAL(name)(path, flags, mode);                                      \
	}
OPEN(open)
OPEN(open64)

#define SYNC_CALL(name)                         \
	int name(int fd)                        \
	{                                       \
		FAIL_IF(fate_of_fd(SYNC, fd));  \
		return REAL(name)(fd);          \
	}
SYNC_CALL(fsync)
SYNC_CALL(fdatasync)

#define TRUNCATE(name)                                                   \
	int name(int fd, off_t length)                                   \
	{                                                                \
		FAIL_IF(has_room(fd, length) ? 0 : fate_of_fd(ROOM, fd)); \
		return REAL(name)(fd, length);                           \
	}
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define ALLOCATE(name) /* which returns its error */            \
	int name(int fd, off_t start, off_t length)             \
	{                                                       \
		int error = fate_of_fd(ROOM, fd);               \
		return error ? error : REAL(name)(fd, start, length); \
	}
ALLOCATE(posix_fallocate)
ALLOCATE(posix_fallocate64)

#define PWRITE(name)                                                           \
	ssize_t name(int fd, const void *data, size_t count, off_t offset)     \
	{                                                                      \
		int error = has_room(fd, offset + count) ? 0 : fate_of_fd(WRITE, fd);  \
		if (error == SHORT)                                            \
			return REAL(name)(fd, data, (count + 1) / 2, offset);  \
		FAIL_IF(error);                                                \
		return REAL(name)(fd, data, count, offset);                    \
	}
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t write(int fd, const void *data, size_t count)
{
	int error = fate_of_fd(WRITE, fd);
	if (error == SHORT)
		return REAL(write)(fd, data, (count + 1) / 2);
	FAIL_IF(error);
	return REAL(write)(fd, data, count);
}

int rename(const char *from, const char *to)
{
	FAIL_IF(fate(NAME, to));
	return REAL(rename)(from, to);
}

int link(const char *from, const char *to)
{
	FAIL_IF(fate(NAME, to));
	return REAL(link)(from, to);
}

int mkdir(const char *path, mode_t mode)
{
	FAIL_IF(fate(NAME, path));
	return REAL(mkdir)(path, mode);
}

pid_t fork(void)
{
	FAIL_IF(fate(FORK, NULL));
	return REAL(fork)();
}
