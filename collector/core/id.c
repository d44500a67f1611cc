#include "core/id.h"

#include <string.h>

uint64_t id_hash64(uint64_t seed, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;
	uint64_t h = 14695981039346656037ull ^ seed;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 1099511628211ull;
	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdull;
	h ^= h >> 33;
	h *= 0xc4ceb9fe1a85ec53ull;
	h ^= h >> 33;
	return h ? h : 1;
}

static void write_big_endian(uint8_t *out, uint64_t n)
{
	for (int i = 0; i < 8; i++)
		out[i] = (uint8_t)(n >> (56 - 8 * i));
}

void span_id_of(uint8_t ret[8], const struct run_id *run)
{
	write_big_endian(ret, id_hash64(0, run->b, sizeof(run->b)));
}

/* 8-4-4-4-12 hex digits. */
static bool read_uuid(struct run_id *ret, struct str text)
{
	static const uint8_t groups[] = {4, 2, 2, 2, 6};
	const char *p = text.p;
	size_t done = 0;

	if (text.len != 36)
		return false;
	for (size_t g = 0; g < sizeof(groups); g++) {
		if (g > 0 && *p++ != '-')
			return false;
		if (!hex_read(ret->b + done, groups[g], p))
			return false;
		done += groups[g];
		p += 2 * groups[g];
	}
	return true;
}

void run_id_of_text(struct run_id *ret, struct str text)
{
	if (read_uuid(ret, text))
		return;
	write_big_endian(ret->b, id_hash64(1, text.p, text.len));
	write_big_endian(ret->b + 8, id_hash64(2, text.p, text.len));
}

static bool is_lower_hex(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!(p[i] >= '0' && p[i] <= '9') && !(p[i] >= 'a' && p[i] <= 'f'))
			return false;
	return true;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	while (n > 0 && *p == 0)
		p++, n--;
	return n == 0;
}

/* version "-" trace id "-" parent id "-" flags, in 2, 32, 16 and 2 lower-case digits. A later
 * version may go on after another dash. */
bool traceparent_parse(struct str text, uint8_t ret_trace_id[16], uint8_t ret_parent_id[8],
                       uint8_t *ret_flags)
{
	enum { TRACE = 3, PARENT = 36, FLAGS = 53, LENGTH = 55 };
	uint8_t version, trace_id[16], parent_id[8], flags;
	const char *p = text.p;

	if (text.len < LENGTH || p[TRACE - 1] != '-' || p[PARENT - 1] != '-' || p[FLAGS - 1] != '-')
		return false;
	if (!is_lower_hex(p, 2) || !is_lower_hex(p + TRACE, 32) || !is_lower_hex(p + PARENT, 16) ||
	    !is_lower_hex(p + FLAGS, 2))
		return false;
	if (!hex_read(&version, 1, p) || !hex_read(trace_id, 16, p + TRACE) ||
	    !hex_read(parent_id, 8, p + PARENT) || !hex_read(&flags, 1, p + FLAGS))
		return false;
	if (version == 0xff || (version == 0 && text.len != LENGTH) ||
	    (text.len > LENGTH && p[LENGTH] != '-'))
		return false;
	if (all_zero(trace_id, 16) || all_zero(parent_id, 8))
		return false;
	memcpy(ret_trace_id, trace_id, 16);
	memcpy(ret_parent_id, parent_id, 8);
	*ret_flags = flags;
	return true;
}
