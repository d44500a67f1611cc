#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include "base/clock.h"
#include "ingest/conn.h"

#define TEXT(literal)                                                                              \
	{                                                                                          \
		literal, sizeof(literal) - 1                                                       \
	}

const struct closing evidence_of_loss = {
	.status = STATUS_ERROR,
	.error_type = TEXT("process_lost"),
	.error_message = TEXT("the process was lost while this ran: killed, or crashed"),
};

/* --- what a parent told --- */

static const char *name_of_signal(int number)
{
	static const struct {
		int number;
		const char *name;
	} names[] = {
		{SIGHUP, " (SIGHUP)"},   {SIGINT, " (SIGINT)"},   {SIGQUIT, " (SIGQUIT)"},
		{SIGILL, " (SIGILL)"},   {SIGTRAP, " (SIGTRAP)"}, {SIGABRT, " (SIGABRT)"},
		{SIGBUS, " (SIGBUS)"},   {SIGFPE, " (SIGFPE)"},   {SIGKILL, " (SIGKILL)"},
		{SIGSEGV, " (SIGSEGV)"}, {SIGPIPE, " (SIGPIPE)"}, {SIGALRM, " (SIGALRM)"},
		{SIGTERM, " (SIGTERM)"}, {SIGXCPU, " (SIGXCPU)"}, {SIGXFSZ, " (SIGXFSZ)"},
		{SIGSYS, " (SIGSYS)"},
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].number == number)
			return names[i].name;
	return "";
}

struct closing evidence_of_word(struct word word, char reason[REASON_SIZE])
{
	struct closing why = {.status = STATUS_ERROR};

	if (word.kind == WORD_SIGNAL) {
		snprintf(reason, REASON_SIZE,
		         "the process was killed by signal %d%s while this ran", word.value,
		         name_of_signal(word.value));
		why.error_type = STR("process_killed");
	} else {
		snprintf(reason, REASON_SIZE,
		         "the process ended with exit code %d while this ran%s", word.value,
		         word.value ? "" : ": it left without ending it");
		why.error_type = STR("process_exited");
	}
	why.error_message = str_of(reason);
	return why;
}

/* --- what is known of a process that left without a bye --- */

static const struct closing lost_connection = {
	.status = STATUS_ERROR,
	.error_type = TEXT("connection_lost"),
	.error_message = TEXT("the connection was lost while this ran"),
};

static const struct closing lost_connection_only = {
	.status = STATUS_ERROR,
	.error_type = TEXT("connection_lost"),
	.error_message = TEXT("the connection was lost while this ran; its process goes on"),
};

static const struct closing out_of_memory = {
	.status = STATUS_ERROR,
	.error_type = TEXT("oom_killed"),
	.error_message = TEXT("the process was killed while this ran: out of memory (OOM kill)"),
};

/* One kill explains the end of all connections of one process. */
static void explain_others(const struct conn *c)
{
	const struct list_node *all = &c->in->ended;

	for (const struct list_node *n = all->next; n != all; n = n->next) {
		struct conn *other = container_of(n, struct conn, in_all);
		if (other->peer.pid == c->peer.pid && other->peer.start == c->peer.start)
			other->oom = other->cgroup == c->cgroup;
	}
}

static bool was_out_of_memory(struct conn *c)
{
	if (!c->oom && c->cgroup && cgroup_explains(c->cgroup, c->kills_before, c->kills_after)) {
		c->oom = true;
		explain_others(c);
	}
	return c->oom;
}

/* In the order of what says most: the parent's word, the kernel's count, the connection itself. A
 * SIGKILL and a count that rose are one story. */
static struct closing choose(struct conn *c, bool alive, char reason[REASON_SIZE])
{
	if (alive)
		return lost_connection_only;
	bool oom = was_out_of_memory(c);
	bool is_kill = c->word.kind == WORD_SIGNAL && c->word.value == SIGKILL;
	if (oom && (is_kill || c->word.kind == WORD_NONE))
		return out_of_memory;
	if (c->word.kind != WORD_NONE)
		return evidence_of_word(c->word, reason);
	return c->peer.pid ? evidence_of_loss : lost_connection;
}

static void describe(const struct conn *c, bool alive, char evidence[EVIDENCE_SIZE])
{
	char *p = evidence, *end = evidence + EVIDENCE_SIZE;

	if (c->peer.pid == 0)
		p += snprintf(p, (size_t)(end - p),
		              "connection closed without bye; process not visible");
	else
		p += snprintf(p, (size_t)(end - p),
		              "connection closed without bye; pid %" PRId64 " %s", c->peer.pid,
		              alive ? "runs" : "is gone");
	if (!alive && c->word.kind == WORD_EXIT)
		p += snprintf(p, (size_t)(end - p), "; its parent says: exit code %d",
		              c->word.value);
	else if (!alive && c->word.kind == WORD_SIGNAL)
		p += snprintf(p, (size_t)(end - p), "; its parent says: signal %d%s", c->word.value,
		              name_of_signal(c->word.value));
	if (c->oom)
		snprintf(p, (size_t)(end - p),
		         "; oom_kill of its memory cgroup rose from %" PRIu64 " to %" PRIu64,
		         c->kills_before, c->kills_after);
}

/* It may only wait for its model, half a frame unsent, and will come back. */
static bool may_come_back(const struct conn *c, bool alive)
{
	return c->timed_out && (alive || c->peer.pid == 0);
}

static void judge(struct conn *c, bool alive)
{
	char evidence[EVIDENCE_SIZE], reason[REASON_SIZE];
	struct moment at = {clock_unix_ns(), clock_mono_ns()};

	if (may_come_back(c, alive)) {
		for (struct source *s = c->source; s; s = s->older)
			s->seen_ns = at.mono_ns;
		conn_let_go(c);
		orphans_watch(c->in);
		return;
	}
	struct closing why = choose(c, alive, reason);
	describe(c, alive, evidence);
	why.evidence = str_of(evidence);
	pipeline_lock(c->in->pipeline);
	if (!alive) // what its process began before we were here ended with it
		runs_adopt(c->in->runs, c->source);
	conn_close_runs(c, &why, c->ended);
	pipeline_unlock(c->in->pipeline);
	pipeline_fed(c->in->pipeline);
	conn_let_go(c);
}

static void on_evidence(uv_timer_t *timer)
{
	struct conn *c = timer->data;
	bool alive = c->peer.pid && peer_is_alive(c->peer.pid, c->peer.start);
	uint64_t waited_ns = clock_mono_ns() - c->ended.mono_ns;

	if (!alive && c->word.kind == WORD_NONE && !c->in->stopping &&
	    waited_ns < WORD_MS * NS_PER_MS && conn_is_watched(c))
		return; // the next time
	judge(c, alive);
}

void conn_take_evidence(struct conn *c)
{
	if (!cgroup_kills(c->cgroup, &c->kills_after))
		c->kills_after = c->kills_before;
}

/* The kernel closes a killed process's files before it is gone, so we look a little later. */
void conn_await_evidence(struct conn *c)
{
	uv_timer_start(&c->timer, on_evidence, EVIDENCE_MS, EVIDENCE_MS);
	list_append(&c->in->ended, &c->in_all);
}

void conn_judge_now(struct conn *c)
{
	uv_timer_start(&c->timer, on_evidence, 0, EVIDENCE_MS);
}
