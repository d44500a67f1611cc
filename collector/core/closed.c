#include "core/closed.h"

#include <stdlib.h>
#include <string.h>

/* A ring of entries, oldest first, and an open-addressing index into it: twice as many places as
 * entries keep the probes short. Both are reserved at once and touched as they fill. A place holds
 * part of the id as well, so that a probe seldom has to look into the ring. */
enum { PLACES = 2 * CAP_CLOSED_RUNS, EMPTY = 0 };

struct place {
	uint32_t tag; // the second half of the span id
	uint32_t at;  // position in the ring, plus one; EMPTY
};

struct closed {
	struct closed_run ring[CAP_CLOSED_RUNS];
	struct place index[PLACES];
	uint32_t head, count;
};

struct closed *closed_new(void)
{
	return calloc(1, sizeof(struct closed));
}

void closed_free(struct closed *c)
{
	free(c);
}

static uint32_t place_of(const uint8_t span_id[8])
{
	uint32_t hash;

	memcpy(&hash, span_id, sizeof(hash)); // span ids are hashes already
	return hash % PLACES;
}

static uint32_t tag_of(const uint8_t span_id[8])
{
	uint32_t tag;

	memcpy(&tag, span_id + 4, sizeof(tag));
	return tag;
}

static uint32_t next_place(uint32_t place)
{
	return place + 1 == PLACES ? 0 : place + 1;
}

/* The place of an entry, or the free one where it would go. */
static uint32_t find(const struct closed *c, const uint8_t span_id[8])
{
	uint32_t place = place_of(span_id);
	uint32_t tag = tag_of(span_id);

	for (; c->index[place].at != EMPTY; place = next_place(place)) {
		const struct place *p = &c->index[place];
		if (p->tag == tag && memcmp(c->ring[p->at - 1].span_id, span_id, 8) == 0)
			break;
	}
	return place;
}

/* Takes an entry out and closes the gap, so that later probes still find theirs. */
static void unindex(struct closed *c, uint32_t gap)
{
	uint32_t place = gap;

	for (;;) {
		place = next_place(place);
		if (c->index[place].at == EMPTY)
			break;
		uint32_t home = place_of(c->ring[c->index[place].at - 1].span_id);
		bool stays =
			gap <= place ? home > gap && home <= place : home > gap || home <= place;
		if (stays)
			continue;
		c->index[gap] = c->index[place];
		gap = place;
	}
	c->index[gap].at = EMPTY;
}

static void forget_oldest(struct closed *c)
{
	unindex(c, find(c, c->ring[c->head].span_id));
	c->head = (c->head + 1) % CAP_CLOSED_RUNS;
	c->count--;
}

void closed_add(struct closed *c, const uint8_t span_id[8], const uint8_t trace_id[16],
                const uint8_t request[3], uint64_t now_ns)
{
	uint32_t place = find(c, span_id);

	if (c->index[place].at != EMPTY) { // its id is used again
		struct closed_run *again = &c->ring[c->index[place].at - 1];
		memcpy(again->trace_id, trace_id, sizeof(again->trace_id));
		memcpy(again->request, request, sizeof(again->request));
		again->when_ns = now_ns;
		return;
	}
	if (c->count == CAP_CLOSED_RUNS) {
		forget_oldest(c);
		place = find(c, span_id);
	}
	uint32_t at = (c->head + c->count++) % CAP_CLOSED_RUNS;
	struct closed_run *run = &c->ring[at];
	memcpy(run->span_id, span_id, sizeof(run->span_id));
	memcpy(run->trace_id, trace_id, sizeof(run->trace_id));
	memcpy(run->request, request, sizeof(run->request));
	run->when_ns = now_ns;
	c->index[place] = (struct place){tag_of(span_id), at + 1};
}

const struct closed_run *closed_get(const struct closed *c, const uint8_t span_id[8],
                                    uint64_t now_ns)
{
	uint32_t place = find(c, span_id);

	if (c->index[place].at == EMPTY)
		return NULL;
	const struct closed_run *run = &c->ring[c->index[place].at - 1];
	return now_ns - run->when_ns <= CLOSED_REMEMBERED_NS ? run : NULL;
}
