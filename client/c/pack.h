/* pack.h - writes msgpack in its shortest forms into a fixed buffer.
 *
 * What does not fit sets `full`, after which every call does nothing: it is checked once, at the
 * end. It packs in place, so that the library depends on nothing but libc. Global names inside
 * the library begin with sl_: a program that links it statically shares them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pack {
	uint8_t *data;
	size_t len, room;
	bool full;
};

void sl_pack_bytes(struct pack *p, const void *bytes, size_t n);
void sl_pack_array(struct pack *p, size_t count);
void sl_pack_map(struct pack *p, size_t count);
void sl_pack_uint(struct pack *p, uint64_t n);
void sl_pack_int(struct pack *p, int64_t n);
void sl_pack_double(struct pack *p, double d);
void sl_pack_bool(struct pack *p, bool b);
void sl_pack_bin(struct pack *p, const void *bytes, size_t n);

/** A text as UTF-8: bytes that are not are written as '?'. */
void sl_pack_text(struct pack *p, const char *text, size_t len);

/** The longest prefix of at most max bytes that doesn't end inside a character. */
size_t sl_text_cut(const char *text, size_t len, size_t max);
