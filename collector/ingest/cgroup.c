#include "ingest/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/list.h"

enum { PATH_SIZE = 1024, TEXT_SIZE = 8192 };

/* A mounted hierarchy: which part of it stands where. */
struct mount {
	char root[PATH_SIZE / 2]; // the cgroup that is mounted; empty: none is
	char at[PATH_SIZE / 2];
};

struct cgroups {
	char proc[PATH_SIZE / 2];
	struct mount v1, v2;
	struct list_node all;
	unsigned count;
};

struct cgroup {
	struct cgroups *in;
	struct list_node in_all;
	unsigned members;
	int fd;
	uint64_t explained; // the count up to which its kills have explained an end
	char path[];        // of the file
};

/* --- where the hierarchies are --- */

static bool has_word(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = list; (p = strstr(p, word)) != NULL; p += len)
		if ((p == list || p[-1] == ',') && (p[len] == '\0' || p[len] == ','))
			return true;
	return false;
}

/* proc(5): id parent device root mount-point options [optional]… - type source super-options. The
 * first of each kind is taken. A path with a space, which stands there as \040, is passed over. */
static void read_mount(struct cgroups *g, const char *line)
{
	struct mount m;
	char type[32], options[256];
	const char *rest = strstr(line, " - ");

	if (!rest || sscanf(rest, " - %31s %*s %255s", type, options) != 2 ||
	    sscanf(line, "%*s %*s %*s %511s %511s", m.root, m.at) != 2 || strchr(m.at, '\\'))
		return;
	if (strcmp(type, "cgroup2") == 0 && g->v2.root[0] == '\0')
		g->v2 = m;
	else if (strcmp(type, "cgroup") == 0 && g->v1.root[0] == '\0' &&
	         has_word(options, "memory"))
		g->v1 = m;
}

static void find_mounts(struct cgroups *g)
{
	char path[PATH_SIZE], *line = NULL;
	size_t size = 0;

	snprintf(path, sizeof(path), "%s/self/mountinfo", g->proc);
	FILE *f = fopen(path, "re");
	if (!f)
		return;
	while (getline(&line, &size, f) > 0)
		read_mount(g, line);
	free(line);
	fclose(f);
}

int cgroups_new(struct cgroups **ret, const char *proc)
{
	struct cgroups *g = calloc(1, sizeof(*g));

	if (!g)
		return -ENOMEM;
	list_init(&g->all);
	snprintf(g->proc, sizeof(g->proc), "%s", proc);
	find_mounts(g);
	*ret = g;
	return 0;
}

void cgroups_free(struct cgroups *g)
{
	free(g);
}

/* --- one process's cgroup --- */

/* The cgroup's path as this process sees the hierarchy, below the part of it that is mounted.
 * NULL: it is outside. */
static const char *below(const struct mount *m, const char *cgroup)
{
	size_t len = strlen(m->root);

	if (m->root[0] == '\0' || strncmp(cgroup, "/..", 3) == 0)
		return NULL;
	if (len == 1) // the whole of it
		return cgroup[1] ? cgroup : "";
	if (strncmp(cgroup, m->root, len) != 0 || (cgroup[len] && cgroup[len] != '/'))
		return NULL;
	return cgroup + len;
}

/* The line of a hierarchy in /proc/PID/cgroup: id:controllers:path. Ends it where its path does. */
static char *find_line(char *text, bool (*is_wanted)(const char *id, const char *controllers))
{
	for (char *line = text, *next; line && *line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		char *controllers = strchr(line, ':');
		char *path = controllers ? strchr(controllers + 1, ':') : NULL;
		if (!path)
			continue;
		*controllers = *path = '\0';
		bool found = is_wanted(line, controllers + 1);
		*controllers = *path = ':';
		if (found)
			return path + 1;
		if (next)
			next[-1] = '\n';
	}
	return NULL;
}

static bool is_v1_memory(const char *id, const char *controllers)
{
	return has_word(controllers, "memory");
}

static bool is_v2(const char *id, const char *controllers)
{
	return strcmp(id, "0") == 0 && controllers[0] == '\0';
}

static bool read_text(const struct cgroups *g, int64_t pid, char *ret, size_t size)
{
	char path[PATH_SIZE];

	snprintf(path, sizeof(path), "%s/%" PRId64 "/cgroup", g->proc, pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t n = read(fd, ret, size - 1);
	close(fd);
	ret[n > 0 ? n : 0] = '\0';
	return n > 0;
}

static bool name_file(char ret[PATH_SIZE], const struct mount *m, const char *cgroup,
                      const char *file)
{
	const char *rest = cgroup ? below(m, cgroup) : NULL;
	int n = rest ? snprintf(ret, PATH_SIZE, "%s%s/%s", m->at, rest, file) : -1;

	return n > 0 && n < PATH_SIZE && access(ret, R_OK) == 0;
}

/* memory.events counts a whole subtree, where there is a file that doesn't it is the better one. */
static bool find_file(struct cgroups *g, int64_t pid, char ret[PATH_SIZE])
{
	char text[TEXT_SIZE], copy[TEXT_SIZE];

	if (!read_text(g, pid, text, sizeof(text)))
		return false;
	memcpy(copy, text, sizeof(copy));
	if (name_file(ret, &g->v1, find_line(copy, is_v1_memory), "memory.oom_control"))
		return true;
	const char *v2 = find_line(text, is_v2);
	return name_file(ret, &g->v2, v2, "memory.events.local") ||
	       name_file(ret, &g->v2, v2, "memory.events");
}

static bool read_kills(int fd, uint64_t *ret)
{
	char text[1024];

	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	if (n <= 0)
		return false;
	text[n] = '\0';
	for (const char *p = text; (p = strstr(p, "oom_kill ")) != NULL; p++)
		if (p == text || p[-1] == '\n')
			return sscanf(p, "oom_kill %" SCNu64, ret) == 1;
	return false;
}

static struct cgroup *find(struct cgroups *g, const char *path)
{
	for (struct list_node *n = g->all.next; n != &g->all; n = n->next) {
		struct cgroup *cg = container_of(n, struct cgroup, in_all);
		if (strcmp(cg->path, path) == 0)
			return cg;
	}
	return NULL;
}

static void forget(struct cgroup *cg)
{
	list_remove(&cg->in_all);
	cg->in->count--;
	close(cg->fd);
	free(cg);
}

static struct cgroup *add(struct cgroups *g, const char *path)
{
	size_t len = strlen(path) + 1;
	struct cgroup *cg = g->count < CGROUPS_MAX ? calloc(1, sizeof(*cg) + len) : NULL;

	if (!cg)
		return NULL;
	memcpy(cg->path, path, len);
	cg->in = g;
	cg->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (cg->fd < 0 || !read_kills(cg->fd, &cg->explained)) {
		if (cg->fd >= 0)
			close(cg->fd);
		free(cg);
		return NULL;
	}
	g->count++;
	list_append(&g->all, &cg->in_all);
	return cg;
}

struct cgroup *cgroups_join(struct cgroups *g, int64_t pid, uint64_t *ret_kills)
{
	char path[PATH_SIZE];

	if (!g || pid <= 0 || !find_file(g, pid, path))
		return NULL;
	struct cgroup *cg = find(g, path);
	if (!cg)
		cg = add(g, path);
	// One that was removed, and another made with its name, can't be read any more.
	if (!cg || !read_kills(cg->fd, ret_kills)) {
		if (cg && cg->members == 0)
			forget(cg);
		return NULL;
	}
	cg->members++;
	return cg;
}

void cgroup_leave(struct cgroup *cg)
{
	if (cg && --cg->members == 0)
		forget(cg);
}

bool cgroup_kills(const struct cgroup *cg, uint64_t *ret)
{
	return cg && read_kills(cg->fd, ret);
}

bool cgroup_explains(struct cgroup *cg, uint64_t since, uint64_t kills)
{
	if (kills <= since || kills <= cg->explained)
		return false;
	cg->explained = cg->explained > since ? cg->explained + 1 : since + 1;
	return true;
}
