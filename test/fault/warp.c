/* warp - other clocks for one program: a wall clock that steps, and time that runs faster.
 *
 *   WARP=FILE LD_PRELOAD=libwarp.so PROGRAM
 *
 * FILE is a struct warp, which may be changed while the program runs. step_ns is added to the wall
 * clock, and to it alone. From its start until until_ns of the real monotonic clock (0: for ever)
 * time passes speed times as fast for the program, on both clocks, and what it waits for comes
 * accordingly sooner; 0 or 1 is as it is.
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
	int64_t until_ns;
};

static struct warp none, *warp = &none;
static int64_t began_mono;

static int64_t word(const int64_t *w)
{
	return __atomic_load_n(w, __ATOMIC_RELAXED);
}

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

	began_mono = real(CLOCK_MONOTONIC);
	if (fd < 0)
		return;
	void *map = mmap(NULL, sizeof(*warp), PROT_READ, MAP_SHARED, fd, 0);
	if (map != MAP_FAILED)
		warp = map;
	close(fd);
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

/* How much faster time passes at that moment of the real monotonic clock. */
static int64_t speed_at(int64_t mono)
{
	int64_t until = word(&warp->until_ns), speed = word(&warp->speed);

	return speed > 1 && (until == 0 || mono < until) ? speed : 1;
}

/* What has passed since the start that really has not. */
static int64_t gained(void)
{
	int64_t mono = real(CLOCK_MONOTONIC), until = word(&warp->until_ns);
	int64_t end = until && until < mono ? until : mono;

	return (end - began_mono) * (speed_at(end - 1) - 1);
}

static int64_t warped(clockid_t clock)
{
	if (is_wall(clock))
		return real(CLOCK_REALTIME) + gained() + word(&warp->step_ns);
	return real(CLOCK_MONOTONIC) + gained();
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
static struct timespec wait_of(int64_t ns)
{
	return timespec_of(ns > 0 ? ns / speed_at(real(CLOCK_MONOTONIC)) : 0);
}

PUBLIC int poll(struct pollfd *list, nfds_t n, int ms)
{
	struct timespec t = wait_of((int64_t)ms * NS_PER_MS);

	return ppoll(list, n, ms < 0 ? NULL : &t, NULL);
}

PUBLIC int epoll_pwait(int fd, struct epoll_event *list, int n, int ms, const sigset_t *set)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct timespec t = wait_of((int64_t)ms * NS_PER_MS);

	if (ms != 0 && ppoll(&p, 1, ms < 0 ? NULL : &t, set) < 0)
		return -1;
	return (int)syscall(SYS_epoll_pwait, fd, list, n, 0, NULL, (size_t)8);
}

PUBLIC int epoll_wait(int fd, struct epoll_event *list, int n, int ms)
{
	return epoll_pwait(fd, list, n, ms, NULL);
}

/* Our conditions all go by the monotonic clock; which one it is can't be asked. */
PUBLIC int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *at)
{
	int64_t left = (int64_t)at->tv_sec * NS_PER_S + at->tv_nsec - warped(CLOCK_MONOTONIC);
	struct timespec t = wait_of(left);

	t = timespec_of(real(CLOCK_MONOTONIC) + (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec);
	return pthread_cond_clockwait(c, m, CLOCK_MONOTONIC, &t);
}
