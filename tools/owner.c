#include "owner.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LEVELS_MAX = 64 };

/* What a process was executed with: the same in one that was only forked. */
struct image {
	char arguments[4096], program[256];
	ssize_t arguments_len, program_len;
};

static ssize_t read_file(long pid, const char *name, char *to, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%ld/%s", pid, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t n = read(fd, to, size);
	close(fd);
	return n;
}

static struct image image_of(long pid)
{
	struct image i;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%ld/exe", pid);
	i.program_len = readlink(path, i.program, sizeof(i.program));
	i.arguments_len = read_file(pid, "cmdline", i.arguments, sizeof(i.arguments));
	return i;
}

static bool is_same(const struct image *a, const struct image *b)
{
	return a->program_len > 0 && a->program_len == b->program_len &&
	       memcmp(a->program, b->program, (size_t)a->program_len) == 0 &&
	       a->arguments_len > 0 && a->arguments_len == b->arguments_len &&
	       memcmp(a->arguments, b->arguments, (size_t)a->arguments_len) == 0;
}

static long parent_of(long pid)
{
	char text[1024];

	ssize_t n = read_file(pid, "stat", text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	const char *behind_name = strrchr(text, ')'); // the name may hold anything
	// ") S 4711": its state, of one letter, then its parent.
	return behind_name && strlen(behind_name) > 4 ? strtol(behind_name + 4, NULL, 10) : 0;
}

long owner_find(void)
{
	long pid = getppid();
	struct image own = image_of(pid);

	for (int i = 0; i < LEVELS_MAX; i++) {
		long above = parent_of(pid);
		if (above <= 0)
			break;
		struct image its = image_of(above);
		if (!is_same(&own, &its))
			break;
		pid = above;
	}
	return pid;
}

void owner_name(long pid, char *ret, size_t size)
{
	ssize_t n = read_file(pid, "comm", ret, size - 1);

	ret[n > 0 ? n : 0] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
}
