#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "core/event.h"
#include "ingest/conn.h"

/* Whether what c says of pid, as it sees it, is said of the process of `of`. A number means
 * something only in its own PID namespace: where c's is another one than ours, its own children are
 * known by what they call themselves. */
static bool is_meant(const struct conn *c, int64_t pid, const struct conn *of)
{
	if (c == of || (c->peer.uid != 0 && c->peer.uid != of->peer.uid))
		return false;
	if (c->peer.pid == 0 || of->peer.pid == 0)
		return c->peer.pid == of->peer.pid && of->said_pid == pid;
	if (c->said_pid && c->said_pid != c->peer.pid)
		return of->said_pid == pid && of->peer.parent == c->peer.pid;
	return of->peer.pid == pid;
}

static bool watches(const struct conn *c, const struct conn *of)
{
	for (unsigned i = 0; i < c->watched_count; i++)
		if (is_meant(c, c->watched[i], of))
			return true;
	return false;
}

bool conn_is_watched(const struct conn *c)
{
	const struct list_node *all = &c->in->watchers;

	for (const struct list_node *n = all->next; n != all; n = n->next)
		if (watches(container_of(n, struct conn, in_watchers), c))
			return true;
	return false;
}

/* Whether pids are to it what they are to us, and it may speak of any of ours. */
static bool is_believed(const struct conn *c)
{
	bool is_ours = c->peer.pid && (c->said_pid == 0 || c->said_pid == c->peer.pid);

	return is_ours && (c->peer.uid == 0 || c->peer.uid == geteuid());
}

bool conn_awaits_word(const struct ingest *in, int64_t pid)
{
	for (const struct list_node *n = in->watchers.next; n != &in->watchers; n = n->next) {
		const struct conn *c = container_of(n, struct conn, in_watchers);

		for (unsigned i = 0; i < c->watched_count; i++)
			if (c->watched[i] == pid && is_believed(c))
				return true;
	}
	return false;
}

void conn_forget_children(struct conn *c)
{
	free(c->watched);
	c->watched = NULL;
	c->watched_count = 0;
	list_remove(&c->in_watchers);
}

static void unwatch(struct conn *c, int64_t pid)
{
	for (unsigned i = 0; i < c->watched_count; i++)
		if (c->watched[i] == pid) {
			c->watched[i] = c->watched[--c->watched_count];
			break;
		}
	if (c->watched_count == 0)
		conn_forget_children(c);
}

static enum refusal watch(struct conn *c, int64_t pid)
{
	for (unsigned i = 0; i < c->watched_count; i++)
		if (c->watched[i] == pid)
			return REFUSAL_NONE;
	if (c->watched_count == WATCHES_MAX)
		return REFUSED_NO_MEMORY;
	if (!c->watched)
		c->watched = calloc(WATCHES_MAX, sizeof(*c->watched));
	if (!c->watched)
		return REFUSED_NO_MEMORY;
	c->watched[c->watched_count++] = pid;
	if (!list_is_linked(&c->in_watchers))
		list_append(&c->in->watchers, &c->in_watchers);
	return REFUSAL_NONE;
}

/* Its connection may have ended already, or its last bytes not be read yet. One that lives is
 * another process, which has taken the number. */
static void tell(struct conn *c, int64_t pid, struct word word, struct list_node *list)
{
	for (struct list_node *n = list->next; n != list; n = n->next) {
		struct conn *of = container_of(n, struct conn, in_all);
		if (!is_meant(c, pid, of) ||
		    (of->peer.pid && peer_is_alive(of->peer.pid, of->peer.start)))
			continue;
		of->word = word;
		if (of->ended_once)
			conn_judge_now(of);
	}
}

enum refusal conn_on_child(struct conn *c, const struct event *ev, struct moment at)
{
	struct word word = {WORD_NONE, 0};

	if (ev->exit >= 0)
		word = (struct word){WORD_EXIT, (int)ev->exit};
	else if (ev->signal > 0)
		word = (struct word){WORD_SIGNAL, (int)ev->signal};
	else
		return watch(c, ev->pid);
	unwatch(c, ev->pid);
	tell(c, ev->pid, word, &c->in->all);
	tell(c, ev->pid, word, &c->in->ended);
	if (is_believed(c))
		orphans_tell(c->in, ev->pid, word, at);
	return REFUSAL_NONE;
}
