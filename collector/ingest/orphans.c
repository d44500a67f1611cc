#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "ingest/conn.h"

/* Runs that a daemon before us left open, or a client that was silent in the middle of a frame, or
 * one that said that another process owns them, belong to their process, whichever of its
 * connections goes on with them: they are closed when it is gone. Where it can't be seen, a
 * connection that describes itself alike stands for it. */

static struct moment now(void)
{
	return (struct moment){clock_unix_ns(), clock_mono_ns()};
}

static void close_orphan(struct ingest *in, struct source *s, const struct closing *why)
{
	runs_close_source(in->runs, s, why, now());
	runs_drop_source(in->runs, s);
}

static bool is_same_process(const struct source *a, const struct source *b)
{
	struct str of_a = {(const char *)a->resource.data, a->resource.len};
	struct str of_b = {(const char *)b->resource.data, b->resource.len};

	if (a->pid || b->pid)
		return a->pid == b->pid && a->pid_start == b->pid_start;
	return str_eq(of_a, of_b);
}

static bool is_connected(const struct ingest *in, const struct source *s)
{
	for (const struct list_node *n = in->all.next; n != &in->all; n = n->next)
		if (is_same_process(container_of(n, struct conn, in_all)->source, s))
			return true;
	return false;
}

static bool is_gone(struct ingest *in, struct source *s)
{
	uint64_t at = clock_mono_ns();
	bool is_there = s->pid ? peer_is_alive(s->pid, s->pid_start) : is_connected(in, s);

	if (is_there)
		s->seen_ns = at;
	uint64_t since = s->seen_ns > in->started_ns ? s->seen_ns : in->started_ns;
	uint64_t unseen_ms = (at - since) / NS_PER_MS;
	if (s->pid)
		return !is_there && (unseen_ms >= WORD_MS || !conn_awaits_word(in, s->pid));
	return unseen_ms >= (s->owned ? OWNER_UNSEEN_MS : ORPHAN_UNSEEN_MS);
}

struct check {
	struct ingest *in;
	unsigned left;
};

static void check(void *ctx, struct source *s)
{
	struct check *w = ctx;
	struct closing why = s->left ? conn_closed_by_bye : evidence_of_loss;
	char evidence[EVIDENCE_SIZE];

	if (!is_gone(w->in, s)) {
		w->left++;
		return;
	}
	if (s->pid)
		snprintf(evidence, sizeof(evidence), "pid %" PRId64 " is gone", s->pid);
	else
		snprintf(evidence, sizeof(evidence), "no connection for %d s; process not visible",
		         (s->owned ? OWNER_UNSEEN_MS : ORPHAN_UNSEEN_MS) / 1000);
	if (s->owned && !s->left)
		why.error_message = STR("the process that this belonged to ended before it");
	if (!s->left)
		why.evidence = str_of(evidence);
	pipeline_lock(w->in->pipeline);
	close_orphan(w->in, s, &why);
	pipeline_unlock(w->in->pipeline);
}

void on_orphans(uv_timer_t *timer)
{
	struct check w = {timer->data, 0};

	runs_each_orphaned(w.in->runs, check, &w);
	pipeline_fed(w.in->pipeline);
	if (w.left == 0)
		uv_timer_stop(timer);
}

void orphans_watch(struct ingest *in)
{
	if (!in->stopping && !uv_is_active((uv_handle_t *)&in->orphans))
		uv_timer_start(&in->orphans, on_orphans, ORPHAN_CHECK_MS, ORPHAN_CHECK_MS);
}

void orphans_stop(struct ingest *in)
{
	uv_timer_stop(&in->orphans);
	uv_timer_stop(&in->heirs);
}

/* --- processes whose socket another one holds --- */

static bool has_open_runs(const struct conn *c)
{
	for (const struct source *s = c->source; s; s = s->older)
		if (s->runs > 0)
			return true;
	return false;
}

/* A process that was forked keeps its parent's socket open, so no end of it comes when the parent
 * dies: what it had open would run for ever. */
static void on_heirs(uv_timer_t *timer)
{
	struct ingest *in = timer->data;
	unsigned left = 0;

	for (struct list_node *n = in->all.next, *next; n != &in->all; n = next) {
		struct conn *c = container_of(n, struct conn, in_all);
		next = n->next;
		if (c->peer.pid == 0 || !has_open_runs(c))
			continue;
		if (!in->full && !peer_is_alive(c->peer.pid, c->peer.start) && conn_is_silent(c))
			conn_hang_up(c);
		else
			left++;
	}
	if (left == 0)
		uv_timer_stop(timer);
}

void heirs_watch(struct conn *c)
{
	uv_timer_t *timer = &c->in->heirs;

	if (!c->in->stopping && !uv_is_active((uv_handle_t *)timer) && has_open_runs(c))
		uv_timer_start(timer, on_heirs, HEIR_CHECK_MS, HEIR_CHECK_MS);
}

struct note {
	const struct source *source;
	bool bye;
};

static void note(void *ctx, struct source *s)
{
	const struct note *w = ctx;

	if (is_same_process(s, w->source))
		s->left = w->bye;
}

void orphans_note(struct conn *c, bool bye)
{
	struct note w = {c->source, bye};

	// Without the timer there are none; and a visitor's leaving says nothing of the owner.
	if (uv_is_active((uv_handle_t *)&c->in->orphans) && !c->source->owned)
		runs_each_orphaned(c->in->runs, note, &w);
}

struct told {
	struct ingest *in;
	int64_t pid;
	struct closing why;
};

static void tell(void *ctx, struct source *s)
{
	const struct told *w = ctx;

	if (s->pid == w->pid && !peer_is_alive(s->pid, s->pid_start))
		close_orphan(w->in, s, &w->why);
}

void orphans_tell(struct ingest *in, int64_t pid, struct word word, struct moment at)
{
	char reason[REASON_SIZE], evidence[EVIDENCE_SIZE];
	struct told w = {in, pid, evidence_of_word(word, reason)};

	if (!uv_is_active((uv_handle_t *)&in->orphans))
		return;
	snprintf(evidence, sizeof(evidence), "pid %" PRId64 " is gone; its parent says: %s %d", pid,
	         word.kind == WORD_EXIT ? "exit code" : "signal", word.value);
	w.why.evidence = str_of(evidence);
	runs_each_orphaned(in->runs, tell, &w);
}
