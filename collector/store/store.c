#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/db.h"

/* Its first line says whose directory it is, its second who has it. */
static const char lock_name[] = "sidelight.lock";
static const char lock_mark[] = "sidelight store\n";

enum { READERS_BYTES = 8192 }; // LMDB's own length for 126 readers

int from_mdb(int code)
{
	switch (code) {
	case MDB_NOTFOUND:
		return -ENOENT;
	case MDB_MAP_FULL:
	case MDB_TXN_FULL:
	case EDQUOT:
	case EFBIG:
		return -ENOSPC;
	case MDB_INVALID:
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
	case MDB_CURSOR_FULL:
	case MDB_PAGE_FULL:
		return ERR_CORRUPT;
	case MDB_VERSION_MISMATCH:
		return ERR_VERSION;
	default:
		if (code > 0)
			return -code;
		return code > MDB_LAST_ERRCODE ? code : -EIO; // ours, or one without a word
	}
}

/* --- the directory --- */

/* Creates dir, and what is missing above it, 0700. */
static int make_dir(const char *dir)
{
	char path[PATH_MAX];
	struct stat st;
	size_t len = strlen(dir);
	int why = ENOENT; // why something is missing: the first reason is the best

	if (len >= sizeof(path))
		return -ENAMETOOLONG;
	memcpy(path, dir, len + 1);
	for (size_t i = 1; i <= len; i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		char was = path[i];
		path[i] = '\0';
		if (mkdir(path, 0700) != 0 && errno != EEXIST && why == ENOENT)
			why = errno;
		path[i] = was;
	}
	if (stat(dir, &st) != 0)
		return errno == ENOENT ? -why : -errno;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

/* A memory map over these may show other bytes than the server has, or fault. */
static int check_file_system(const char *dir)
{
	struct statfs st;

	if (statfs(dir, &st) != 0)
		return -errno;
	switch ((uint32_t)st.f_type) {
	case NFS_SUPER_MAGIC:
	case SMB_SUPER_MAGIC:
	case CODA_SUPER_MAGIC:
	case AFS_SUPER_MAGIC:
	case CIFS_SUPER_MAGIC:
	case SMB2_SUPER_MAGIC:
	case FUSE_SUPER_MAGIC:
	case V9FS_MAGIC:
		return ERR_NETWORK_FS;
	default:
		return 0;
	}
}

static int path_in(char *out, const char *dir, const char *name)
{
	int n = snprintf(out, PATH_MAX, "%s/%s", dir, name);

	return n > 0 && n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* --- the lock file --- */

/* A lock of the open file, not of the process: a second store_open() in the same process is refused
 * too, and closing some other descriptor of the file doesn't drop it. */
static int lock_whole(int fd, int cmd, struct flock *l)
{
	*l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
	if (fcntl(fd, cmd, l) == 0)
		return 0;
	return errno == EAGAIN || errno == EACCES ? ERR_BUSY : -errno;
}

static bool is_marked(int fd)
{
	char text[sizeof(lock_mark) - 1];

	return pread(fd, text, sizeof(text), 0) == (ssize_t)sizeof(text) &&
	       memcmp(text, lock_mark, sizeof(text)) == 0;
}

static int take_lock(const char *dir, int *ret_fd, bool *ret_marked)
{
	char path[PATH_MAX];
	struct flock l;
	int rc = path_in(path, dir, lock_name);

	if (rc != 0)
		return rc;
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	rc = lock_whole(fd, F_OFD_SETLK, &l);
	if (rc != 0) {
		close(fd);
		return rc;
	}
	*ret_fd = fd;
	*ret_marked = is_marked(fd);
	return 0;
}

/* For the tool: whether a daemon has it now. LMDB itself copes with one that starts later. */
static int look_at_lock(const char *dir, bool *ret_marked)
{
	char path[PATH_MAX];
	struct flock l;
	int rc = path_in(path, dir, lock_name);

	if (rc != 0)
		return rc;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	rc = lock_whole(fd, F_OFD_GETLK, &l);
	if (rc == 0 && l.l_type != F_UNLCK)
		rc = ERR_BUSY;
	*ret_marked = is_marked(fd);
	close(fd);
	return rc;
}

/* Only once the store is open: the mark must never stand beside somebody else's files. */
static int write_mark(int fd)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "%spid %ld\n", lock_mark, (long)getpid());

	if (n < 0 || pwrite(fd, text, (size_t)n, 0) != n || ftruncate(fd, n) != 0)
		return errno ? -errno : -EIO;
	return 0;
}

long store_holder(const char *dir)
{
	char path[PATH_MAX], text[64] = "";
	long pid = 0;

	if (path_in(path, dir, lock_name) != 0)
		return 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) > (ssize_t)sizeof(lock_mark) &&
	    memcmp(text, lock_mark, sizeof(lock_mark) - 1) == 0 &&
	    strncmp(text + sizeof(lock_mark) - 1, "pid ", 4) == 0)
		pid = strtol(text + sizeof(lock_mark) + 3, NULL, 10);
	close(fd);
	return pid;
}

/* --- the environment --- */

int open_databases(struct store *s, MDB_txn *txn, unsigned create)
{
	const struct {
		const char *name;
		unsigned flags;
		MDB_dbi *dbi;
	} databases[] = {
		{"meta", 0, &s->meta},
		{"open", 0, &s->open},
		{"cursors", 0, &s->cursors},
		{"spans", MDB_INTEGERKEY, &s->logs[STORE_SPANS].blocks},
		{"spans_dir", MDB_INTEGERKEY, &s->logs[STORE_SPANS].dir},
		{"observations", MDB_INTEGERKEY, &s->logs[STORE_OBSERVATIONS].blocks},
		{"observations_dir", MDB_INTEGERKEY, &s->logs[STORE_OBSERVATIONS].dir},
	};

	for (unsigned i = 0; i < sizeof(databases) / sizeof(databases[0]); i++) {
		int rc = mdb_dbi_open(txn, databases[i].name, databases[i].flags | create,
		                      databases[i].dbi);
		if (rc != 0)
			return rc;
	}
	s->logs[STORE_SPANS].mark_bytes = mark_bytes(BLOCK_SPANS);
	s->logs[STORE_OBSERVATIONS].mark_bytes = mark_bytes(BLOCK_OBSERVATIONS);
	return 0;
}

static int put_number(struct store *s, MDB_txn *txn, const char *key, uint64_t n)
{
	MDB_val k = val_of(key, strlen(key)), v = val_of(&n, sizeof(n));

	return mdb_put(txn, s->meta, &k, &v, 0);
}

static int write_format(struct store *s, MDB_txn *txn)
{
	MDB_val k = val_of("format", 6), v;
	int rc = mdb_get(txn, s->meta, &k, &v);

	if (rc != MDB_NOTFOUND)
		return rc;
	rc = put_number(s, txn, "format", STORE_FORMAT);
	return rc != 0 ? rc : put_number(s, txn, "created", clock_unix_ns());
}

/* The numbers go on where the last block ended, or, in an empty log, where meta says. */
static int load_log(struct store *s, MDB_txn *txn, enum which_log which)
{
	struct log *log = &s->logs[which];
	uint64_t next[STORE_LOGS] = {1, 1}, first;
	struct dir_entry entry;
	MDB_cursor *c;
	MDB_val k = val_of("next", 4), v;

	if (mdb_get(txn, s->meta, &k, &v) == 0 && v.mv_size == sizeof(next))
		memcpy(next, v.mv_data, sizeof(next));
	first = next[which];
	int rc = mdb_cursor_open(txn, log->dir, &c);
	if (rc != 0)
		return rc;
	rc = mdb_cursor_get(c, &k, &v, MDB_FIRST);
	if (rc == 0) {
		memcpy(&first, k.mv_data, sizeof(first));
		rc = mdb_cursor_get(c, &k, &v, MDB_LAST);
	}
	if (rc == 0)
		rc = dir_entry_read(&entry, log, &v);
	if (rc == 0) {
		memcpy(&next[which], k.mv_data, sizeof(next[which]));
		next[which] += entry.count;
	}
	mdb_cursor_close(c);
	atomic_init(&log->first, first);
	atomic_init(&log->next, next[which]);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

static int load(struct store *s, bool read_only)
{
	MDB_txn *txn;
	MDB_stat st;
	int rc = mdb_txn_begin(s->env, NULL, read_only ? MDB_RDONLY : 0, &txn);

	if (rc != 0)
		return rc;
	rc = open_databases(s, txn, read_only ? 0 : MDB_CREATE);
	if (rc == 0 && !read_only)
		rc = write_format(s, txn);
	for (unsigned i = 0; i < STORE_LOGS && rc == 0; i++)
		rc = load_log(s, txn, (enum which_log)i);
	if (rc == 0)
		rc = mdb_stat(txn, s->meta, &st);
	if (rc == 0)
		losses_load(s, txn);
	if (rc != 0) {
		mdb_txn_abort(txn);
		return rc;
	}
	s->page_bytes = st.ms_psize;
	stat_set(&s->stats->store_bytes, used_pages(s, txn) * st.ms_psize);
	return mdb_txn_commit(txn); // also when reading: it makes the handles everybody's
}

/* LMDB maps its table of readers and writes there: a hole in it, on a disk that is full, is a
 * SIGBUS. This is the length that it gives the file itself. */
static int reserve_readers(const char *dir)
{
	char path[PATH_MAX];

	if (path_in(path, dir, "lock.mdb") < 0)
		return ENAMETOOLONG;
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno;
	int rc = fallocate(fd, 0, 0, READERS_BYTES) < 0 ? errno : 0;
	close(fd);
	return rc == EOPNOTSUPP ? 0 : rc; // not every file system can
}

static int open_env(struct store *s, const struct store_options *o)
{
	int rc = o->read_only ? 0 : reserve_readers(o->dir);

	if (rc == 0)
		rc = mdb_env_create(&s->env);
	if (rc == 0)
		rc = mdb_env_set_maxdbs(s->env, STORE_DATABASES);
	if (rc == 0)
		rc = mdb_env_set_mapsize(s->env, o->read_only ? 0 : o->bytes);
	if (rc == 0)
		rc = mdb_env_open(s->env, o->dir, MDB_NOTLS | (o->read_only ? MDB_RDONLY : 0),
		                  0600);
	if (rc == 0 && !o->read_only)
		rc = mdb_reader_check(s->env, NULL);
	return rc != 0 ? rc : load(s, o->read_only);
}

/* Owns the quota's room on the disk from the start, so that nobody can take it later. Where the
 * file system can't, or has no room, the file grows as it is written. */
static void preallocate(struct store *s, uint64_t bytes)
{
	mdb_filehandle_t fd;
	struct stat st;

	if (mdb_env_get_fd(s->env, &fd) != 0 || fstat(fd, &st) != 0)
		return;
	s->preallocated = (uint64_t)st.st_blocks * 512 >= bytes && (uint64_t)st.st_size >= bytes;
	if (s->preallocated)
		return;
	s->preallocated = fallocate(fd, 0, 0, (off_t)bytes) == 0;
	if (!s->preallocated && ftruncate(fd, st.st_size) != 0)
		return; // what it got until the disk was full stays ours, and is not too long
}

bool store_is_preallocated(const struct store *s)
{
	return s->preallocated;
}

/* --- open and close --- */

static struct store *store_new(const struct store_options *o)
{
	struct store *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;

	if (!s)
		return NULL;
	s->lock_fd = -1;
	s->stats = o->stats ? o->stats : &s->unwatched;
	s->opened_unix_ns = clock_unix_ns();
	s->opened_mono_ns = clock_mono_ns();
	s->retention_ns = o->retention_ns;
	s->keep_undelivered = o->keep_undelivered;
	pthread_mutex_init(&s->readers_lock, NULL);
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->wake, &attr);
	pthread_condattr_destroy(&attr);
	return s;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	if (s->env)
		write_notes(s);
	while (s->reader_count > 0)
		mdb_txn_abort(s->readers[--s->reader_count]);
	if (s->env)
		mdb_env_close(s->env);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	pthread_cond_destroy(&s->wake);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->readers_lock);
	free(s);
}

static int open_read_only(struct store *s, const struct store_options *o)
{
	bool marked = false;
	int rc = look_at_lock(o->dir, &marked);

	if (rc == 0)
		rc = verify(o->dir, 0, marked, FOR_READING);
	return rc != 0 ? rc : from_mdb(open_env(s, o));
}

static int open_writable(struct store *s, const struct store_options *o, char **ret_quarantine)
{
	bool marked = false;
	int rc = make_dir(o->dir);

	if (rc == 0)
		rc = check_file_system(o->dir);
	if (rc == 0)
		rc = take_lock(o->dir, &s->lock_fd, &marked);
	if (rc == 0)
		rc = verify(o->dir, o->bytes, marked, FOR_WRITING);
	if (rc == ERR_CORRUPT) {
		rc = quarantine(o->dir, ret_quarantine);
		s->set_aside = 1;
	}
	if (rc == 0 || rc == -ENOENT)
		rc = from_mdb(open_env(s, o));
	if (rc == 0)
		rc = write_mark(s->lock_fd);
	if (rc != 0)
		return rc;
	s->limit_pages = o->bytes / s->page_bytes;
	stat_set(&s->stats->store_limit_bytes, o->bytes);
	preallocate(s, o->bytes);
	return 0;
}

int store_open(struct store **ret, const struct store_options *options, char **ret_quarantine)
{
	struct store *s = store_new(options);
	char *aside = NULL;

	if (!s)
		return -ENOMEM;
	int rc =
		options->read_only ? open_read_only(s, options) : open_writable(s, options, &aside);
	if (rc != 0) {
		free(aside);
		store_close(s);
		return rc;
	}
	if (ret_quarantine)
		*ret_quarantine = aside;
	else
		free(aside);
	*ret = s;
	return 0;
}
