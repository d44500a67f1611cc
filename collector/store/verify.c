/* Is the file sound? LMDB has no checksums and follows whatever a page says, off the map's end if
 * need be. So a child process walks every key once before we do; if it dies of that, the file is
 * corrupt. A corrupt file is moved aside, never removed. */
#include "store/db.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

enum {
	BUDGET_MS = 40,    // for the walk; what it has not come to by then is taken on trust
	CPU_SECONDS = 1,   // for the child, in case LMDB runs in circles
	NEWEST_BLOCKS = 8, // whose checksums are verified: what a crash would have hit
};

/* What the child exits with. */
enum verdict { SOUND, CORRUPT, FOREIGN, NEWER, UNKNOWN };

/* --- the first look, at the two meta pages, without LMDB --- */

/* LMDB's page header is 16 bytes; then come magic and version. */
struct meta_start {
	uint8_t page[16];
	uint32_t magic, version;
};

static const uint32_t lmdb_magic = 0xbeefc0de, lmdb_version = 1;

/* The file's kind by its first bytes. */
static enum verdict look_at_metas(int fd, bool marked)
{
	struct meta_start m[2] = {0};
	unsigned ours = 0, newer = 0;

	for (unsigned i = 0; i < 2; i++) {
		ssize_t n = pread(fd, &m[i], sizeof(m[i]), (off_t)i * sysconf(_SC_PAGESIZE));
		if (n != (ssize_t)sizeof(m[i]) || m[i].magic != lmdb_magic)
			continue;
		ours += m[i].version == lmdb_version;
		newer += m[i].version > lmdb_version;
	}
	if (ours == 2)
		return SOUND;
	if (newer == 2)
		return NEWER;
	return marked || ours > 0 ? CORRUPT : FOREIGN;
}

/* --- the walk, in the child --- */

struct walk {
	MDB_txn *txn;
	enum scrutiny scrutiny;
	uint64_t until_ns;
	uint64_t steps;
};

static bool is_out_of_time(struct walk *w)
{
	return ++w->steps % 64 == 0 && clock_mono_ns() > w->until_ns;
}

typedef bool sound_fn(const MDB_val *v);

/* Every key in ascending order, every value where it can be, and to its liking. */
static enum verdict walk_database(struct walk *w, MDB_dbi dbi, size_t key_size, sound_fn *is_sound)
{
	char last[512];
	size_t last_len = 0;
	MDB_cursor *c;
	MDB_val k, v;

	if (mdb_cursor_open(w->txn, dbi, &c) != 0)
		return CORRUPT;
	int rc = mdb_cursor_get(c, &k, &v, MDB_FIRST);
	for (; rc == 0; rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) {
		MDB_val before = val_of(last, last_len);
		if (k.mv_size == 0 || k.mv_size > sizeof(last) ||
		    (key_size != 0 && k.mv_size != key_size) ||
		    (last_len != 0 && mdb_cmp(w->txn, dbi, &before, &k) >= 0) ||
		    (is_sound && !is_sound(&v)))
			return CORRUPT;
		memcpy(last, k.mv_data, k.mv_size);
		last_len = k.mv_size;
		if (is_out_of_time(w))
			return SOUND;
	}
	return rc == MDB_NOTFOUND ? SOUND : CORRUPT;
}

static bool is_open_sound(const MDB_val *v)
{
	struct open_parts parts;

	return open_parse(&parts, (struct str){v->mv_data, v->mv_size}) == 0;
}

static bool is_cursor_sound(const MDB_val *v)
{
	return cursor_is_sound(v->mv_size);
}

/* Both databases of a log have the same keys, and each block begins where the one before ended. To
 * ask LMDB for a block reads a page of it: for a reader, which compares the lengths itself, only
 * the keys are looked at. */
static enum verdict walk_log(struct walk *w, const struct log *log)
{
	MDB_cursor *blocks, *dir;
	MDB_val bk, bv, dk, dv;
	struct dir_entry entry;
	uint64_t seq = 0, expected = 0;
	MDB_val *block = w->scrutiny == FOR_WRITING ? &bv : NULL;

	if (mdb_cursor_open(w->txn, log->blocks, &blocks) != 0 ||
	    mdb_cursor_open(w->txn, log->dir, &dir) != 0)
		return CORRUPT;
	int brc = mdb_cursor_get(blocks, &bk, block, MDB_FIRST);
	int drc = mdb_cursor_get(dir, &dk, &dv, MDB_FIRST);
	while (brc == 0 && drc == 0) {
		if (bk.mv_size != sizeof(seq) || dk.mv_size != sizeof(seq) ||
		    memcmp(bk.mv_data, dk.mv_data, sizeof(seq)) != 0)
			return CORRUPT;
		memcpy(&seq, dk.mv_data, sizeof(seq));
		if (dir_entry_read(&entry, log, &dv) != 0 || entry.count == 0 ||
		    (block && block->mv_size != entry.length) || (expected != 0 && seq != expected))
			return CORRUPT;
		expected = seq + entry.count;
		if (is_out_of_time(w))
			return SOUND;
		brc = mdb_cursor_get(blocks, &bk, block, MDB_NEXT);
		drc = mdb_cursor_get(dir, &dk, &dv, MDB_NEXT);
	}
	return brc == MDB_NOTFOUND && drc == MDB_NOTFOUND ? SOUND : CORRUPT;
}

static enum verdict check_newest(struct walk *w, const struct log *log)
{
	struct block_reader r;
	MDB_cursor *c;
	MDB_val k, v;

	if (mdb_cursor_open(w->txn, log->blocks, &c) != 0)
		return CORRUPT;
	int rc = mdb_cursor_get(c, &k, &v, MDB_LAST);
	for (unsigned i = 0; i < NEWEST_BLOCKS && rc == 0; i++) {
		if (block_open(&r, (struct str){v.mv_data, v.mv_size}) != 0)
			return CORRUPT;
		rc = mdb_cursor_get(c, &k, &v, MDB_PREV);
	}
	return rc == 0 || rc == MDB_NOTFOUND ? SOUND : CORRUPT;
}

/* Whose file it is and of which format. An environment without any database is a new one. */
static enum verdict check_format(struct walk *w, struct store *s, bool marked)
{
	enum { MAIN_DBI = 1 };
	MDB_stat st;
	uint64_t format;
	MDB_val k = val_of("format", 6), v;

	if (mdb_stat(w->txn, MAIN_DBI, &st) != 0)
		return CORRUPT;
	if (st.ms_entries == 0)
		return SOUND;
	int rc = mdb_dbi_open(w->txn, "meta", 0, &s->meta);
	if (rc == 0)
		rc = mdb_get(w->txn, s->meta, &k, &v);
	if (rc == MDB_NOTFOUND || rc == MDB_INCOMPATIBLE)
		return marked ? CORRUPT : FOREIGN;
	if (rc != 0 || v.mv_size != sizeof(format))
		return CORRUPT;
	memcpy(&format, v.mv_data, sizeof(format));
	if (format == 0)
		return CORRUPT;
	return format > STORE_FORMAT ? NEWER : SOUND;
}

static enum verdict walk_all(struct walk *w, struct store *s, bool marked)
{
	enum { MAIN_DBI = 1 };
	enum verdict v = check_format(w, s, marked);
	MDB_stat st;

	if (v != SOUND || mdb_stat(w->txn, MAIN_DBI, &st) != 0 || st.ms_entries == 0)
		return v;
	if (open_databases(s, w->txn, 0) != 0)
		return CORRUPT;
	for (unsigned i = 0; i < STORE_LOGS && v == SOUND; i++)
		v = check_newest(w, &s->logs[i]);
	if (v == SOUND)
		v = walk_database(w, s->meta, 0, NULL);
	if (v == SOUND)
		v = walk_database(w, s->cursors, 0, is_cursor_sound);
	for (unsigned i = 0; i < STORE_LOGS && v == SOUND; i++)
		v = walk_log(w, &s->logs[i]);
	return v == SOUND ? walk_database(w, s->open, sizeof(struct run_id), is_open_sound) : v;
}

/* In the child. What it opens it leaves to its exit. */
static enum verdict examine(const char *dir, int fd, uint64_t bytes, uint64_t map_bytes,
                            bool marked, enum scrutiny scrutiny)
{
	struct store s = {0};
	struct walk w = {.scrutiny = scrutiny, .until_ns = clock_mono_ns() + BUDGET_MS * NS_PER_MS};

	if (!pages_are_sound(fd, bytes, scrutiny, w.until_ns))
		return CORRUPT;
	if (mdb_env_create(&s.env) != 0 || mdb_env_set_maxdbs(s.env, STORE_DATABASES) != 0 ||
	    mdb_env_set_mapsize(s.env, map_bytes) != 0)
		return UNKNOWN;
	int rc = mdb_env_open(s.env, dir, MDB_NOTLS | MDB_NOLOCK | MDB_RDONLY, 0);
	if (rc == EACCES || rc == EMFILE || rc == ENFILE || rc == ENOMEM)
		return UNKNOWN;
	if (rc != 0)
		return CORRUPT;
	if (mdb_txn_begin(s.env, NULL, MDB_RDONLY, &w.txn) != 0)
		return CORRUPT;
	return walk_all(&w, &s, marked);
}

/* Dies quietly and soon: no core, no handler of ours or a sanitizer's, not outliving the parent. */
static void prepare_child(void)
{
	static const int deadly[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
	const struct rlimit no_core = {0, 0}, cpu = {CPU_SECONDS, CPU_SECONDS};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++)
		signal(deadly[i], SIG_DFL);
	setrlimit(RLIMIT_CORE, &no_core);
	setrlimit(RLIMIT_CPU, &cpu);
	int null = open("/dev/null", O_RDWR); // for what LMDB says when it asserts
	if (null >= 0)
		dup2(null, STDERR_FILENO);
}

/* --- the parent --- */

static int verdict_error(enum verdict v)
{
	switch (v) {
	case CORRUPT:
		return ERR_CORRUPT;
	case FOREIGN:
		return ERR_FOREIGN;
	case NEWER:
		return ERR_VERSION;
	case SOUND:
	case UNKNOWN: // whatever it was comes up again when it is opened
		break;
	}
	return 0;
}

/* Only a signal that the child brought upon itself says something about the file. */
static int signal_error(int sig)
{
	switch (sig) {
	case SIGSEGV:
	case SIGBUS:
	case SIGFPE:
	case SIGILL:
	case SIGABRT:
	case SIGXCPU:
		return ERR_CORRUPT;
	default:
		return -EINTR;
	}
}

static int examine_in_child(const char *dir, int fd, uint64_t bytes, uint64_t map_bytes,
                            bool marked, enum scrutiny scrutiny)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		prepare_child();
		_exit((int)examine(dir, fd, bytes, map_bytes, marked, scrutiny));
	}
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	if (WIFSIGNALED(status))
		return signal_error(WTERMSIG(status));
	return verdict_error((enum verdict)WEXITSTATUS(status));
}

static int look(const char *dir, uint64_t map_bytes, bool marked, enum scrutiny scrutiny)
{
	char path[PATH_MAX];
	struct stat st;
	int n = snprintf(path, sizeof(path), "%s/data.mdb", dir);

	if (n < 0 || n >= (int)sizeof(path))
		return -ENAMETOOLONG;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int rc = fstat(fd, &st) != 0 ? -errno : 0;
	if (rc == 0 && !S_ISREG(st.st_mode))
		rc = ERR_FOREIGN;
	if (rc == 0 && st.st_size == 0)
		rc = -ENOENT;
	if (rc == 0)
		rc = verdict_error(look_at_metas(fd, marked));
	if (rc == 0)
		rc = examine_in_child(dir, fd, (uint64_t)st.st_size, map_bytes, marked, scrutiny);
	close(fd);
	return rc;
}

/* A read that failed, or memory that lacked, looks like a damaged file: but not twice. */
int verify(const char *dir, uint64_t map_bytes, bool marked, enum scrutiny scrutiny)
{
	int rc = look(dir, map_bytes, marked, scrutiny);

	return rc == ERR_CORRUPT ? look(dir, map_bytes, marked, scrutiny) : rc;
}

/* The first free name of data.mdb.bad-TIME, data.mdb.bad-TIME-1, … */
static int move_aside(const char *dir, const char *name, uint64_t time_s, char **ret_path)
{
	char from[PATH_MAX], to[PATH_MAX + 64];

	snprintf(from, sizeof(from), "%s/%s", dir, name);
	for (unsigned i = 0; i < 100; i++) {
		int n = snprintf(to, sizeof(to), "%s.bad-%llu", from, (unsigned long long)time_s);
		if (i > 0)
			snprintf(to + n, sizeof(to) - (size_t)n, "-%u", i);
		if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) {
			*ret_path = strdup(to);
			return *ret_path ? 0 : -ENOMEM;
		}
		if (errno != EEXIST)
			return -errno;
	}
	return -EEXIST;
}

int quarantine(const char *dir, char **ret_path)
{
	uint64_t now_s = clock_unix_ns() / NS_PER_S;
	char *lock = NULL;
	int rc = move_aside(dir, "data.mdb", now_s, ret_path);

	if (rc != 0)
		return rc;
	if (move_aside(dir, "lock.mdb", now_s, &lock) == 0)
		free(lock);
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
	return 0;
}
