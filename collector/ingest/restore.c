#include "ingest/restore.h"

#include <errno.h>
#include <stdlib.h>

#include "base/caps.h"
#include "base/log.h"
#include "core/closed.h"
#include "store/block.h"
#include "store/store.h"

struct restoring {
	struct runs *runs;
	struct moment now;
	unsigned unreadable;
};

static bool restore_one(void *ctx, const struct run_id *run, struct str value)
{
	struct restoring *w = ctx;

	if (runs_restore(w->runs, run, value, w->now) < 0)
		w->unreadable++;
	return true;
}

static bool restore_said(void *ctx, const struct run_id *key, struct str value)
{
	struct restoring *w = ctx;

	if (runs_restore_said(w->runs, key, value) < 0)
		w->unreadable++;
	return true;
}

static bool wants(void *ctx, const uint8_t trace_id[16])
{
	struct restoring *w = ctx;

	return runs_wants(w->runs, trace_id);
}

static bool refold(void *ctx, const struct span_record *rec)
{
	struct restoring *w = ctx;

	runs_refold(w->runs, rec);
	return true;
}

static bool remember(void *ctx, const struct span_record *rec)
{
	struct restoring *w = ctx;

	runs_remember(w->runs, rec, w->now);
	return true;
}

static int refold_requests(struct restoring *w, struct store *store)
{
	size_t max = runs_open_count(w->runs) + 1024;
	uint8_t(*ids)[16] = malloc(max * sizeof(*ids));
	uint32_t *fingerprints = malloc(max * sizeof(*fingerprints));
	int rc = -ENOMEM;

	if (ids && fingerprints) {
		size_t count = runs_trace_ids(w->runs, ids, max);
		for (size_t i = 0; i < count; i++)
			fingerprints[i] = trace_fingerprint(ids[i]);
		rc = count ? store_traces(store, fingerprints, count, wants, refold, w) : 0;
	}
	free(ids);
	free(fingerprints);
	return rc;
}

int restore_runs(struct runs *r, struct store *store, struct moment now)
{
	struct restoring w = {.runs = r, .now = now};
	uint64_t since =
		now.unix_ns > CLOSED_REMEMBERED_NS ? now.unix_ns - CLOSED_REMEMBERED_NS : 0;

	int rc = store_open_load(store, restore_one, &w);
	if (rc == 0)
		rc = store_open_load(store, restore_said, &w);
	if (rc < 0)
		return rc;
	if (w.unreadable)
		log_warn("%u open runs could not be read back", w.unreadable);
	rc = refold_requests(&w, store);
	if (rc < 0)
		return rc;
	uint64_t first, next; // no more of them than are remembered
	store_bounds(store, STORE_SPANS, &first, &next);
	return store_spans(store, next > CAP_CLOSED_RUNS ? next - CAP_CLOSED_RUNS : 0, since,
	                   remember, &w);
}
