/* buf.h - a growing byte buffer with a cap.
 *
 * The first error sticks: every later call does nothing, and buf_error() is checked once at
 * the end. Growing doubles up to the cap; buf_clear() keeps the room.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct buf {
	uint8_t *data;
	size_t len;
	size_t room;
	size_t cap;
	int error; // 0, -ENOMEM or -ENOSPC (the cap)
};

/** An empty buffer that never grows past cap bytes. No allocation yet. */
void buf_init(struct buf *b, size_t cap);
void buf_deinit(struct buf *b);

/** Empties it and forgets the error. */
void buf_clear(struct buf *b);

/** Grows to room for n more bytes, past what is there; buf_reserve() calls it. */
bool buf_grow(struct buf *b, size_t n);

/** Makes room for n more bytes; false sets the error. */
static inline bool buf_reserve(struct buf *b, size_t n)
{
	return (!b->error && n <= b->room - b->len) || buf_grow(b, n);
}

/** Room for n bytes, already counted as used, to be written by the caller; NULL on error. */
static inline uint8_t *buf_extend(struct buf *b, size_t n)
{
	if (!buf_reserve(b, n))
		return NULL;
	uint8_t *at = b->data + b->len;
	b->len += n;
	return at;
}

static inline void buf_append(struct buf *b, const void *data, size_t n)
{
	if (n > 0 && buf_reserve(b, n)) {
		memcpy(b->data + b->len, data, n);
		b->len += n;
	}
}

static inline void buf_append_byte(struct buf *b, uint8_t byte)
{
	if (buf_reserve(b, 1))
		b->data[b->len++] = byte;
}

static inline void buf_append_str(struct buf *b, const char *s)
{
	buf_append(b, s, strlen(s));
}

/** Appends text; each byte that is no well-formed UTF-8 becomes U+FFFD. */
void buf_append_utf8(struct buf *b, const char *text, size_t len);

/** Appends a number in decimal digits: a printf costs ten times as much. */
void buf_append_digits(struct buf *b, uint64_t number);

/** Appends bytes as base64 (RFC 4648, section 4), padded. */
void buf_append_base64(struct buf *b, const void *data, size_t len);

void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** 0, or the first error. */
static inline int buf_error(const struct buf *b)
{
	return b->error;
}
