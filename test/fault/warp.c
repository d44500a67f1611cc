/* warp - other clocks for one program: a wall clock that steps, and time that runs faster.
 *
 *   WARP=FILE LD_PRELOAD=libwarp.so PROGRAM
 *
 * FILE is a struct warp. step_ns may be changed while the program runs: it is added to the wall
 * clock, and to it alone. speed is read once: time passes that many times as fast, on both clocks,
 * and what the program waits for comes accordingly sooner; 0 or 1 is as it is. The monotonic clock
 * begins where it really is.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

enum { NS_PER_S = 1000000000, NS_PER_MS = 1000000 };

struct warp {
	int64_t step_ns;
	int64_t speed;
};

static struct warp none, *warp = &none;
static int64_t speed = 1, began_wall, began_mono;

static int64_t real(clockid_t clock)
{
	struct timespec t;

	syscall(SYS_clock_gettime, clock, &t);
	return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

__attribute__((constructor)) static void map_warp(void)
{
	const char *path = getenv("WARP");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	began_wall = real(CLOCK_REALTIME);
	began_mono = real(CLOCK_MONOTONIC);
	if (fd < 0)
		return;
	void *map = mmap(NULL, sizeof(*warp), PROT_READ, MAP_SHARED, fd, 0);
	if (map != MAP_FAILED)
		warp = map;
	close(fd);
	speed = warp->speed > 1 ? warp->speed : 1;
}

static bool is_wall(clockid_t clock)
{
	return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
}

static bool is_mono(clockid_t clock)
{
	return clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_RAW ||
	       clock == CLOCK_MONOTONIC_COARSE || clock == CLOCK_BOOTTIME;
}

static int64_t warped(clockid_t clock)
{
	if (is_wall(clock))
		return began_wall + (real(CLOCK_REALTIME) - began_wall) * speed +
		       __atomic_load_n(&warp->step_ns, __ATOMIC_RELAXED);
	return began_mono + (real(CLOCK_MONOTONIC) - began_mono) * speed;
}

static struct timespec timespec_of(int64_t ns)
{
	return (struct timespec){ns / NS_PER_S, ns % NS_PER_S};
}

/* --- what time it is --- */

PUBLIC int clock_gettime(clockid_t clock, struct timespec *ret)
{
	if (!is_wall(clock) && !is_mono(clock))
		return (int)syscall(SYS_clock_gettime, clock, ret);
	*ret = timespec_of(warped(clock));
	return 0;
}

PUBLIC int gettimeofday(struct timeval *ret, void *zone)
{
	int64_t ns = warped(CLOCK_REALTIME);

	*ret = (struct timeval){ns / NS_PER_S, ns % NS_PER_S / 1000};
	return 0;
}

PUBLIC time_t time(time_t *ret)
{
	time_t now = warped(CLOCK_REALTIME) / NS_PER_S;

	if (ret)
		*ret = now;
	return now;
}

/* --- waiting --- */

/* In parts of a millisecond, where that is what a long wait has become. */
PUBLIC int poll(struct pollfd *list, nfds_t n, int ms)
{
	struct timespec t = timespec_of(ms > 0 ? (int64_t)ms * NS_PER_MS / speed : 0);

	return ppoll(list, n, ms < 0 ? NULL : &t, NULL);
}

PUBLIC int epoll_pwait(int fd, struct epoll_event *list, int n, int ms, const sigset_t *set)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (speed > 1 && ms != 0) {
		struct timespec t = timespec_of(ms > 0 ? (int64_t)ms * NS_PER_MS / speed : 0);
		if (ppoll(&p, 1, ms < 0 ? NULL : &t, set) < 0)
			return -1;
		ms = 0;
	}
	return (int)syscall(SYS_epoll_pwait, fd, list, n, ms, set, (size_t)8);
}

PUBLIC int epoll_wait(int fd, struct epoll_event *list, int n, int ms)
{
	return epoll_pwait(fd, list, n, ms, NULL);
}

/* Our conditions all go by the monotonic clock; which one it is can't be asked. */
PUBLIC int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *at)
{
	int64_t left = (int64_t)at->tv_sec * NS_PER_S + at->tv_nsec - warped(CLOCK_MONOTONIC);
	struct timespec t = timespec_of(real(CLOCK_MONOTONIC) + (left > 0 ? left / speed : 0));

	return pthread_cond_clockwait(c, m, CLOCK_MONOTONIC, &t);
}
