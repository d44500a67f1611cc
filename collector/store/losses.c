/* What was ever lost, by reason: the daemon's counters, carried on from run to run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "store/db.h"

static const char key[] = "losses";

/* X(field): those of struct stats that count something lost on its way into the store. */
#define LOST_STATS(X)                                                                              \
	X(client_dropped)                                                                          \
	X(events_dropped)                                                                          \
	X(spans_dropped)                                                                           \
	X(observations_dropped)                                                                    \
	X(runs_given_up)                                                                           \
	X(blocks_corrupt)

enum lost_stat {
#define X(field) LOST_##field,
	LOST_STATS(X)
#undef X
		LOST_STAT_COUNT
};
_Static_assert((int)LOST_STAT_COUNT + 1 + (int)REFUSAL_COUNT <= CAP_LOSSES, "each has its place");

enum { STORES = LOST_STAT_COUNT, REFUSED }; // places behind those

static void name_of(char name[64], unsigned i)
{
	static const char *const names[] = {
#define X(field) #field,
		LOST_STATS(X)
#undef X
			"stores_set_aside",
	};

	if (i < REFUSED)
		snprintf(name, 64, "%s", names[i]);
	else
		snprintf(name, 64, "frames_refused/%s",
		         refusal_label((enum refusal)(i - REFUSED + REFUSAL_NONE + 1)));
}

enum { COUNT = REFUSED + REFUSAL_COUNT - 1 };

static void count_now(const struct store *s, uint64_t ret[CAP_LOSSES])
{
	const struct stats *st = s->stats;

#define X(field) ret[LOST_##field] = stat_get(&st->field);
	LOST_STATS(X)
#undef X
	ret[STORES] = s->set_aside;
	for (unsigned r = REFUSAL_NONE + 1; r < REFUSAL_COUNT; r++)
		ret[REFUSED + r - REFUSAL_NONE - 1] = stat_get(&st->refused[r]);
	for (unsigned i = 0; i < COUNT; i++)
		ret[i] += s->lost_before[i];
}

static void load_line(struct store *s, const char *line)
{
	char name[64];
	const char *space = strchr(line, ' ');

	for (unsigned i = 0; space && i < COUNT; i++) {
		name_of(name, i);
		if (strlen(name) == (size_t)(space - line) && memcmp(name, line, strlen(name)) == 0)
			s->lost_before[i] = strtoull(space + 1, NULL, 10);
	}
}

void losses_load(struct store *s, MDB_txn *txn)
{
	MDB_val k = val_of(key, sizeof(key) - 1), v;
	char text[CAP_LOSSES * 96];

	if (mdb_get(txn, s->meta, &k, &v) != 0 || v.mv_size >= sizeof(text))
		return;
	memcpy(text, v.mv_data, v.mv_size);
	text[v.mv_size] = '\0';
	for (char *line = text; *line;) {
		char *end = strchr(line, '\n');
		if (!end)
			break;
		*end = '\0';
		load_line(s, line);
		line = end + 1;
	}
	count_now(s, s->lost_written);
}

int losses_put(struct store *s, MDB_txn *txn, uint64_t ret_written[CAP_LOSSES])
{
	struct buf text;
	char name[64];

	memset(ret_written, 0, CAP_LOSSES * sizeof(ret_written[0]));
	count_now(s, ret_written);
	if (memcmp(ret_written, s->lost_written, sizeof(s->lost_written)) == 0)
		return 0;
	buf_init(&text, CAP_LOSSES * 96u);
	for (unsigned i = 0; i < COUNT; i++) {
		if (ret_written[i] == 0)
			continue;
		name_of(name, i);
		buf_printf(&text, "%s %llu\n", name, (unsigned long long)ret_written[i]);
	}
	MDB_val k = val_of(key, sizeof(key) - 1), v = val_of(text.data, text.len);
	int rc = buf_error(&text) ? -buf_error(&text) : mdb_put(txn, s->meta, &k, &v, 0);
	buf_deinit(&text);
	return rc;
}

void store_losses(struct store *s, store_loss_fn *fn, void *ctx)
{
	uint64_t counts[CAP_LOSSES] = {0};
	char name[64];

	count_now(s, counts);
	for (unsigned i = 0; i < COUNT; i++) {
		name_of(name, i);
		if (counts[i] > 0)
			fn(ctx, name, counts[i]);
	}
}
