/* key_set.h - short texts, compared a word at a time, and a set of those of one map.
 *
 * The functions are in here because decoding spends its time in them.
 */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/caps.h"
#include "base/str.h"

static inline uint64_t load64(const char *p)
{
	uint64_t word;

	memcpy(&word, p, sizeof(word));
	return word;
}

static inline uint64_t load32(const char *p)
{
	uint32_t word;

	memcpy(&word, p, sizeof(word));
	return word;
}

/* Fewer than eight bytes in one word, some of them twice. */
static inline uint64_t load_short(struct str s)
{
	if (s.len >= 4)
		return load32(s.p) | load32(s.p + s.len - 4) << 32;
	if (s.len == 0)
		return 0;
	return (uint8_t)s.p[0] | (uint64_t)(uint8_t)s.p[s.len / 2] << 8 |
	       (uint64_t)(uint8_t)s.p[s.len - 1] << 16;
}

/* Most texts are plain ASCII; only the others are looked at byte by byte. */
static inline bool is_utf8(struct str s)
{
	uint64_t high = 0;

	if (s.len < 8) {
		high = load_short(s);
	} else {
		for (size_t i = 0; i + 8 < s.len; i += 8)
			high |= load64(s.p + i);
		high |= load64(s.p + s.len - 8);
	}
	return !(high & 0x8080808080808080ull) || utf8_is_valid(s.p, s.len);
}

/* str_eq() for keys: they are short, and a call to memcmp costs more than they do. */
static inline bool key_eq(struct str a, struct str b)
{
	if (a.len != b.len)
		return false;
	if (a.len < 8)
		return load_short(a) == load_short(b);
	for (size_t i = 0; i + 8 < a.len; i += 8)
		if (load64(a.p + i) != load64(b.p + i))
			return false;
	return load64(a.p + a.len - 8) == load64(b.p + b.len - 8);
}

/* Open addressing over the keys of one map; sized to it, so that small maps stay cheap. Keys that
 * collide on purpose cost CAP_ATTRS²/2 comparisons a map, about a millisecond. */
struct key_set {
	struct str keys[CAP_ATTRS];
	uint16_t slots[2 * CAP_ATTRS]; // index + 1 into keys
	uint32_t mask;
	uint16_t count;
};

static inline void key_set_init(struct key_set *set, uint32_t room)
{
	uint32_t slots = 2;

	assert(room <= CAP_ATTRS);
	while (slots < 2 * room)
		slots *= 2;
	set->mask = slots - 1;
	set->count = 0;
	memset(set->slots, 0, slots * sizeof(set->slots[0]));
}

static inline uint32_t key_hash(struct str key)
{
	const uint64_t k = 0x9e3779b97f4a7c15ull;
	uint64_t h = key.len;

	if (key.len < 8)
		return (uint32_t)(((h ^ load_short(key)) * k) >> 32);
	for (size_t i = 0; i + 8 < key.len; i += 8) {
		h = (h ^ load64(key.p + i)) * k;
		h ^= h >> 32;
	}
	h = (h ^ load64(key.p + key.len - 8)) * k;
	return (uint32_t)(h >> 32);
}

/* False if it is there already. */
static inline bool key_set_add(struct key_set *set, struct str key)
{
	uint32_t i = key_hash(key) & set->mask;

	for (; set->slots[i]; i = (i + 1) & set->mask)
		if (key_eq(set->keys[set->slots[i] - 1], key))
			return false;
	set->keys[set->count++] = key;
	set->slots[i] = set->count;
	return true;
}
