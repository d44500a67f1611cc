#include "export/retry.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_DOUBLINGS = 16 };

static uint64_t scale(uint64_t v, uint32_t random)
{
	return (uint64_t)((double)v * ((double)random / 4294967296.0));
}

uint64_t retry_failed(struct retry *r, uint64_t retry_after_ns, uint32_t random)
{
	unsigned doublings = r->failures < MAX_DOUBLINGS ? r->failures : MAX_DOUBLINGS;
	uint64_t bound = RETRY_FIRST_NS << doublings;

	r->failures++;
	if (retry_after_ns) {
		if (retry_after_ns > RETRY_AFTER_MAX_NS)
			retry_after_ns = RETRY_AFTER_MAX_NS;
		return retry_after_ns + scale(retry_after_ns / 10, random);
	}
	if (bound > RETRY_MAX_NS)
		bound = RETRY_MAX_NS;
	return RETRY_LEAST_NS + scale(bound - RETRY_LEAST_NS, random);
}

void retry_succeeded(struct retry *r)
{
	r->failures = 0;
}

/* HTTP's three forms of a date; all of them mean GMT. */
static bool read_date(const char *text, time_t *ret)
{
	static const char *const forms[] = {
		"%a, %d %b %Y %H:%M:%S",
		"%A, %d-%b-%y %H:%M:%S",
		"%a %b %d %H:%M:%S %Y",
	};

	for (size_t i = 0; i < sizeof(forms) / sizeof(*forms); i++) {
		struct tm tm = {0};
		if (strptime(text, forms[i], &tm)) {
			*ret = timegm(&tm);
			return true;
		}
	}
	return false;
}

static uint64_t clamped_ns(uint64_t seconds)
{
	return seconds < RETRY_AFTER_MAX_NS / NS_PER_S ? seconds * NS_PER_S : RETRY_AFTER_MAX_NS;
}

static bool is_number(const char *text)
{
	return *text && text[strspn(text, "0123456789")] == '\0';
}

uint64_t retry_after_ns(struct str value, uint64_t now_unix_ns)
{
	char text[64];
	time_t date;

	if (!value.p || value.len >= sizeof(text))
		return 0;
	snprintf(text, sizeof(text), "%.*s", (int)value.len, value.p);
	if (is_number(text))
		return clamped_ns(strtoull(text, NULL, 10)); // ULLONG_MAX when it's too long
	uint64_t now = now_unix_ns / NS_PER_S;
	if (!read_date(text, &date) || date < 0 || (uint64_t)date <= now)
		return 0;
	return clamped_ns((uint64_t)date - now);
}
