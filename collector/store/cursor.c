#include "store/cursor.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "store/db.h"

/* --- what was noted; all of it under the store's lock --- */

static struct note *find_note(struct store *s, const char *name)
{
	for (unsigned i = 0; i < s->note_count; i++) {
		if (strcmp(s->notes[i].name, name) == 0)
			return &s->notes[i];
	}
	return NULL;
}

static struct note *add_note(struct store *s, const char *name, enum which_log which)
{
	struct note *n = find_note(s, name);

	if (n)
		return n;
	if (s->note_count == CAP_CURSORS || strlen(name) >= sizeof(n->name))
		return NULL;
	n = &s->notes[s->note_count++];
	strncpy(n->name, name, sizeof(n->name) - 1);
	n->which = which;
	return n;
}

static void ask_for_commit(struct store *s)
{
	if (s->noted_ns)
		return;
	s->noted_ns = clock_mono_ns();
	pthread_cond_signal(&s->wake);
}

void notes_take(struct store *s)
{
	s->writing_count = 0;
	s->noted_ns = 0; // what is noted from now on asks anew
	for (unsigned i = 0; i < STORE_LOGS; i++)
		s->keep_from[i] = UINT64_MAX;
	for (unsigned i = 0; i < s->note_count; i++) {
		const struct note *n = &s->notes[i];
		if (n->pending)
			s->writing[s->writing_count++] = *n;
		if (s->keep_undelivered && n->active && n->cursor.seq < s->keep_from[n->which])
			s->keep_from[n->which] = n->cursor.seq;
	}
}

void notes_written(struct store *s)
{
	for (unsigned i = 0; i < s->writing_count; i++) {
		const struct note *written = &s->writing[i];
		struct note *n = find_note(s, written->name);
		if (memcmp(&n->cursor, &written->cursor, sizeof(n->cursor)) == 0)
			n->pending = false; // else it moved on meanwhile
	}
}

int notes_put(struct store *s, MDB_txn *txn)
{
	for (unsigned i = 0; i < s->writing_count; i++) {
		const struct note *n = &s->writing[i];
		MDB_val k = val_of(n->name, strlen(n->name));
		MDB_val v = val_of(&n->cursor, sizeof(n->cursor));
		int rc = mdb_put(txn, s->cursors, &k, &v, 0);
		if (rc != 0)
			return rc;
	}
	return 0;
}

/* --- what is saved --- */

/* A version before this one wrote the place alone, a later one may write more. */
bool cursor_is_sound(size_t len)
{
	return len >= sizeof(uint64_t) && len % sizeof(uint64_t) == 0;
}

static int parse(struct cursor *ret, const MDB_val *v)
{
	if (!cursor_is_sound(v->mv_size))
		return ERR_CORRUPT;
	*ret = (struct cursor){0};
	memcpy(ret, v->mv_data, v->mv_size < sizeof(*ret) ? v->mv_size : sizeof(*ret));
	return 0;
}

static int load_saved(struct store *s, const char *name, struct cursor *ret)
{
	MDB_val k = val_of(name, strlen(name)), v;
	MDB_txn *txn;
	int rc = reader_begin(s, &txn);

	if (rc != 0)
		return rc;
	rc = from_mdb(mdb_get(txn, s->cursors, &k, &v));
	if (rc == 0)
		rc = parse(ret, &v);
	reader_end(s, txn);
	return rc;
}

static bool load_noted(struct store *s, const char *name, struct cursor *ret)
{
	pthread_mutex_lock(&s->lock);
	struct note *n = find_note(s, name);
	if (n) {
		*ret = n->cursor;
		n->active = true;
	}
	pthread_mutex_unlock(&s->lock);
	return n != NULL;
}

int cursor_open(struct store *s, const char *name, enum which_log which, bool from_beginning,
                struct cursor *ret)
{
	const struct log *log = &s->logs[which];
	struct cursor c;

	if (load_noted(s, name, ret))
		return 0;
	int rc = load_saved(s, name, &c);
	if (rc != 0 && rc != -ENOENT)
		return rc;
	if (rc == -ENOENT)
		c = (struct cursor){
			.seq = atomic_load(from_beginning ? &log->first : &log->next),
			.since_ns = clock_unix_ns(),
		};
	pthread_mutex_lock(&s->lock);
	struct note *n = add_note(s, name, which);
	if (n) {
		n->cursor = c;
		n->active = true;
		// Noted at once: what comes between now and its first delivery is its own.
		n->pending = rc == -ENOENT;
		if (n->pending)
			ask_for_commit(s);
	}
	pthread_mutex_unlock(&s->lock);
	if (!n)
		return -ENOSPC;
	*ret = c;
	return 0;
}

void cursor_note(struct store *s, const char *name, const struct cursor *c)
{
	pthread_mutex_lock(&s->lock);
	struct note *n = find_note(s, name);
	assert(n); // it was opened
	n->cursor = *c;
	n->pending = true;
	ask_for_commit(s);
	pthread_mutex_unlock(&s->lock);
}

void cursor_close(struct store *s, const char *name)
{
	pthread_mutex_lock(&s->lock);
	struct note *n = find_note(s, name);
	if (n)
		n->active = false;
	if (s->keep_undelivered)
		ask_for_commit(s); // there may be room now
	pthread_mutex_unlock(&s->lock);
}

/* Puts what has been noted since in the place of what is saved. */
static void renew(struct store *s, const char *name, struct cursor *c)
{
	pthread_mutex_lock(&s->lock);
	const struct note *n = find_note(s, name);
	if (n)
		*c = n->cursor;
	pthread_mutex_unlock(&s->lock);
}

int cursor_each(struct store *s, cursor_fn *fn, void *ctx)
{
	char name[sizeof(s->notes[0].name)];
	struct cursor cursor;
	MDB_cursor *c;
	MDB_txn *txn;
	MDB_val k, v;
	int rc = reader_begin(s, &txn);

	if (rc != 0)
		return rc;
	rc = mdb_cursor_open(txn, s->cursors, &c);
	if (rc != 0)
		goto end;
	while ((rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) == 0) {
		if (k.mv_size >= sizeof(name) || parse(&cursor, &v) != 0)
			continue;
		memcpy(name, k.mv_data, k.mv_size);
		name[k.mv_size] = '\0';
		renew(s, name, &cursor);
		if (!fn(ctx, name, &cursor))
			break;
	}
	mdb_cursor_close(c);
end:
	reader_end(s, txn);
	return rc == MDB_NOTFOUND ? 0 : from_mdb(rc);
}
