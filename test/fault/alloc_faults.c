/* alloc_faults - memory that runs out, once or for a while, at one place of a program.
 *
 *   ALLOC_FAULTS=FILE LD_PRELOAD=liballoc_faults.so setarch -R PROGRAM
 *
 * FILE is a struct control: what is to fail goes in, what was seen comes out. A place is the path
 * of calls that leads to an allocation, told by a hash of its return addresses: without address
 * randomization it is the same in every run, whichever thread comes first, and a program has far
 * fewer of them than it makes allocations. Meant for glibc, whose own names for the originals it
 * uses.
 */
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

enum { PLACES_MAX = 8192, FRAMES = 24, OWN_FRAMES = 2, TEXT_FRAMES = 14 };

struct place {
	uint64_t hash; // 0: free
	uint64_t count;
};

struct control {
	uint64_t hash;    // of the place that fails; 0: none
	uint64_t nth;     // its first allocation that fails, counted from 1
	uint64_t many;    // how many in a row, wherever they are; 0: as many as come
	uint64_t seen;    // allocations of that place so far
	uint64_t failing; // left to fail
	uint64_t failed;
	uint64_t allocations;
	int64_t live; // not freed, of the program itself and not of its children
	struct place places[PLACES_MAX];
};

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t align, size_t size);
void __libc_free(void *p);

static struct control *control;
static bool is_child;
static int trace = -1; // where the path that failed is told
static __thread bool busy __attribute__((tls_model("initial-exec")));

static void note_child(void)
{
	is_child = true;
}

__attribute__((constructor)) static void map_control(void)
{
	void *frames[FRAMES];
	const char *path = getenv("ALLOC_FAULTS"), *told = getenv("ALLOC_FAULTS_TRACE");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

	if (fd < 0)
		return;
	backtrace(frames, FRAMES); // it allocates the first time
	pthread_atfork(NULL, NULL, note_child);
	if (told)
		trace = open(told, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	void *map = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map != MAP_FAILED)
		control = map;
	close(fd);
}

static uint64_t add(uint64_t *to, uint64_t n)
{
	return __atomic_add_fetch(to, n, __ATOMIC_RELAXED);
}

static uint64_t hash_of(void *const *frames, int n)
{
	uint64_t h = 14695981039346656037u;

	for (int i = 0; i < n; i++)
		h = (h ^ (uintptr_t)frames[i]) * 1099511628211u;
	return h ? h : 1;
}

static void note_place(uint64_t hash)
{
	for (unsigned i = 0; i < PLACES_MAX; i++) {
		struct place *p = &control->places[(hash + i) % PLACES_MAX];
		uint64_t free = 0;
		if (__atomic_load_n(&p->hash, __ATOMIC_RELAXED) == hash ||
		    __atomic_compare_exchange_n(&p->hash, &free, hash, false, __ATOMIC_RELAXED,
		                                __ATOMIC_RELAXED) ||
		    free == hash) {
			add(&p->count, 1);
			return;
		}
	}
}

static bool take_failure(void)
{
	uint64_t left = __atomic_load_n(&control->failing, __ATOMIC_RELAXED);

	while (left > 0)
		if (__atomic_compare_exchange_n(&control->failing, &left, left - 1, false,
		                                __ATOMIC_RELAXED, __ATOMIC_RELAXED))
			return true;
	return false;
}

static void tell(void *const *frames, int n)
{
	if (trace < 0)
		return;
	backtrace_symbols_fd(frames, n < TEXT_FRAMES ? n : TEXT_FRAMES, trace);
	if (write(trace, "\n", 1) < 0)
		_exit(127);
}

/* The frames above it are its own and that of malloc() and the like. */
__attribute__((noinline)) static bool look(void)
{
	void *frames[FRAMES];
	int n = backtrace(frames, FRAMES);
	void *const *path = frames + OWN_FRAMES;
	uint64_t hash = n > OWN_FRAMES ? hash_of(path, n - OWN_FRAMES) : 1;

	add(&control->allocations, 1);
	note_place(hash);
	if (hash == control->hash && add(&control->seen, 1) == control->nth)
		__atomic_store_n(&control->failing, control->many, __ATOMIC_RELAXED);
	if (!take_failure())
		return false;
	add(&control->failed, 1);
	tell(path, n - OWN_FRAMES);
	errno = ENOMEM;
	return true;
}

static inline __attribute__((always_inline)) bool must_fail(void)
{
	if (!control || busy)
		return false;
	busy = true;
	bool fails = look();
	busy = false;
	return fails;
}

static void *count(void *p)
{
	if (p && control && !is_child)
		__atomic_fetch_add(&control->live, 1, __ATOMIC_RELAXED);
	return p;
}

PUBLIC void *malloc(size_t size)
{
	return must_fail() ? NULL : count(__libc_malloc(size));
}

PUBLIC void *calloc(size_t n, size_t size)
{
	return must_fail() ? NULL : count(__libc_calloc(n, size));
}

PUBLIC void *realloc(void *old, size_t size)
{
	if (must_fail())
		return NULL;
	void *p = __libc_realloc(old, size);
	return old ? p : count(p);
}

PUBLIC void *memalign(size_t align, size_t size)
{
	return must_fail() ? NULL : count(__libc_memalign(align, size));
}

PUBLIC void *aligned_alloc(size_t align, size_t size)
{
	return must_fail() ? NULL : count(__libc_memalign(align, size));
}

PUBLIC int posix_memalign(void **ret, size_t align, size_t size)
{
	void *p = must_fail() ? NULL : count(__libc_memalign(align, size));

	if (!p)
		return ENOMEM;
	*ret = p;
	return 0;
}

PUBLIC void free(void *p)
{
	if (p && control && !is_child)
		__atomic_fetch_sub(&control->live, 1, __ATOMIC_RELAXED);
	__libc_free(p);
}
