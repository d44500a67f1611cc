/* disk_faults - a disk that lies, or fails, under one program.
 *
 *   DISK_FAULTS=FILE LD_PRELOAD=libdisk_faults.so PROGRAM
 *
 * FILE is an array of the four 32-bit words of struct faults, which may be changed while the
 * program runs. Without syncing, O_DSYNC and O_SYNC are taken off what is opened, too, so the word
 * must be there before the program is: LMDB writes its meta pages through such a descriptor.
 */
#undef _FILE_OFFSET_BITS // both names of a function are defined here, and neither stands for the
                         // other
#undef _FORTIFY_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

struct faults {
	uint32_t lie;         // a sync does nothing, and says that it did
	uint32_t sync_error;  // errno of each sync; 0: none
	uint32_t write_error; // errno of each write to a regular file; 0: none
	uint32_t failed;      // how often one of them failed
};

static struct faults none, *faults = &none;

__attribute__((constructor)) static void map_faults(void)
{
	const char *path = getenv("DISK_FAULTS");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	if (fd < 0)
		return;
	void *map = mmap(NULL, sizeof(*faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map != MAP_FAILED)
		faults = map;
	close(fd);
}

static uint32_t word(const uint32_t *w)
{
	return __atomic_load_n(w, __ATOMIC_RELAXED);
}

static int fail(uint32_t error)
{
	__atomic_fetch_add(&faults->failed, 1, __ATOMIC_RELAXED);
	errno = (int)error;
	return -1;
}

/* --- syncs --- */

static int sync_by(long number, int fd)
{
	if (word(&faults->sync_error))
		return fail(word(&faults->sync_error));
	return word(&faults->lie) ? 0 : (int)syscall(number, fd);
}

PUBLIC int fsync(int fd)
{
	return sync_by(SYS_fsync, fd);
}

PUBLIC int fdatasync(int fd)
{
	return sync_by(SYS_fdatasync, fd);
}

PUBLIC int msync(void *addr, size_t len, int flags)
{
	return word(&faults->lie) ? 0 : (int)syscall(SYS_msync, addr, len, flags);
}

static int open_plainly(const char *path, int flags, mode_t mode)
{
	if (word(&faults->lie))
		flags &= ~(O_DSYNC | O_SYNC);
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static mode_t mode_of(int flags, va_list args)
{
	return flags & (O_CREAT | __O_TMPFILE) ? va_arg(args, mode_t) : 0;
}

PUBLIC int open(const char *path, int flags, ...)
{
	va_list args;

	va_start(args, flags);
	mode_t mode = mode_of(flags, args);
	va_end(args);
	return open_plainly(path, flags, mode);
}

PUBLIC int open64(const char *path, int flags, ...)
{
	va_list args;

	va_start(args, flags);
	mode_t mode = mode_of(flags, args);
	va_end(args);
	return open_plainly(path, flags | O_LARGEFILE, mode);
}

/* --- writes --- */

static int write_fault(int fd)
{
	struct stat st;

	if (!word(&faults->write_error) || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return 0;
	return fail(word(&faults->write_error));
}

PUBLIC ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at)
{
	return write_fault(fd) ? -1 : syscall(SYS_pwrite64, fd, bytes, n, at);
}

PUBLIC ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at)
{
	return write_fault(fd) ? -1 : syscall(SYS_pwrite64, fd, bytes, n, at);
}

PUBLIC ssize_t pwritev(int fd, const struct iovec *list, int n, off_t at)
{
	return write_fault(fd) ? -1 : syscall(SYS_pwritev, fd, list, n, at, 0);
}

PUBLIC ssize_t pwritev64(int fd, const struct iovec *list, int n, off64_t at)
{
	return write_fault(fd) ? -1 : syscall(SYS_pwritev, fd, list, n, at, 0);
}

PUBLIC ssize_t writev(int fd, const struct iovec *list, int n)
{
	return write_fault(fd) ? -1 : syscall(SYS_writev, fd, list, n);
}
