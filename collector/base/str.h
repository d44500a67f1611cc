/* str.h - a borrowed run of bytes, and the few things done with text everywhere. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/** Borrowed text, not terminated. p is NULL when there is none; len 0 is an empty text. */
struct str {
	const char *p;
	size_t len;
};

#define STR(literal) ((struct str){literal, sizeof(literal) - 1})

static inline struct str str_of(const char *s)
{
	return (struct str){s, s ? strlen(s) : 0};
}

static inline bool str_eq(struct str a, struct str b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.p, b.p, a.len) == 0);
}

#define str_is(s, literal)                                                                         \
	((s).len == sizeof(literal) - 1 && memcmp((s).p, literal, sizeof(literal) - 1) == 0)

/** Whether the bytes are well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms). */
bool utf8_is_valid(const char *p, size_t len);

/** The length of the one well-formed character at p; 0 if there is none. */
size_t utf8_length(const char *p, size_t left);

/** The length of the well-formed beginning. */
size_t utf8_prefix(const char *p, size_t len);

/** The longest prefix of at most max bytes that doesn't end inside a character. */
size_t utf8_cut(const char *p, size_t len, size_t max);

/** Writes 2 × n lower-case hex digits, without a terminator. */
void hex_write(char *out, const uint8_t *bytes, size_t n);

/** Reads exactly n bytes from 2 × n hex digits of either case; false if any is none. */
bool hex_read(uint8_t *ret_bytes, size_t n, const char *hex);

/** Room for "2026-11-24T01:02:03.123456789Z" and its terminator. */
#define TIME_TEXT_SIZE 31

/** RFC 3339 UTC with nanoseconds; years past 9999 are shown as 9999's last instant. */
void time_text(char out[TIME_TEXT_SIZE], uint64_t unix_ns);
