#include <time.h>

#include "base/clock.h"
#include "http/api.h"

/* A cursor over text. */
struct scan {
	const char *p, *end;
};

static bool take_char(struct scan *s, char c)
{
	if (s->p == s->end || *s->p != c)
		return false;
	s->p++;
	return true;
}

/* At least min, at most max decimal digits. */
static bool take_number(struct scan *s, int min, int max, uint64_t *ret)
{
	int n = 0;

	*ret = 0;
	while (n < max && s->p < s->end && *s->p >= '0' && *s->p <= '9') {
		*ret = *ret * 10 + (uint64_t)(*s->p++ - '0');
		n++;
	}
	return n >= min;
}

/* "." and up to nine digits that count, as ns; nothing there is 0. */
static bool take_fraction(struct scan *s, uint64_t *ret_ns)
{
	uint64_t scale = NS_PER_S / 10;

	*ret_ns = 0;
	if (!take_char(s, '.'))
		return true;
	const char *start = s->p;
	for (; s->p < s->end && *s->p >= '0' && *s->p <= '9'; s->p++) {
		*ret_ns += (uint64_t)(*s->p - '0') * scale;
		scale /= 10;
	}
	return s->p > start;
}

static uint64_t unit_seconds(char unit)
{
	switch (unit) {
	case 's':
		return 1;
	case 'm':
		return 60;
	case 'h':
		return 3600;
	case 'd':
		return 86400;
	default:
		return 0;
	}
}

static bool parse_ago(struct scan s, uint64_t now_ns, uint64_t *ret_ns)
{
	uint64_t count;

	if (!take_number(&s, 1, 8, &count) || s.end - s.p != 1)
		return false;
	uint64_t unit = unit_seconds(*s.p);
	uint64_t ago_s = count * unit; // at most 10^8 days: no overflow
	uint64_t now_s = now_ns / NS_PER_S;
	*ret_ns = ago_s < now_s ? now_ns - ago_s * NS_PER_S : 0;
	return unit > 0;
}

static bool parse_unix(struct scan s, uint64_t *ret_ns)
{
	uint64_t seconds, ns;

	if (!take_number(&s, 1, 10, &seconds) || !take_fraction(&s, &ns) || s.p != s.end)
		return false;
	*ret_ns = seconds * NS_PER_S + ns;
	return true;
}

static bool take_zone(struct scan *s, int64_t *ret_east_s)
{
	uint64_t hours, minutes;

	*ret_east_s = 0;
	if (take_char(s, 'Z') || take_char(s, 'z'))
		return true;
	bool is_east = take_char(s, '+');
	if (!is_east && !take_char(s, '-'))
		return false;
	if (!take_number(s, 2, 2, &hours) || !take_char(s, ':') ||
	    !take_number(s, 2, 2, &minutes) || hours > 23 || minutes > 59)
		return false;
	int64_t seconds = (int64_t)(hours * 3600 + minutes * 60);
	*ret_east_s = is_east ? seconds : -seconds;
	return true;
}

static bool take_date(struct scan *s, struct tm *ret)
{
	uint64_t year, month, day;

	if (!take_number(s, 4, 4, &year) || !take_char(s, '-') || !take_number(s, 2, 2, &month) ||
	    !take_char(s, '-') || !take_number(s, 2, 2, &day))
		return false;
	if (year < 1970 || month < 1 || month > 12 || day < 1)
		return false;
	*ret = (struct tm){
		.tm_mday = (int)day, .tm_mon = (int)month - 1, .tm_year = (int)year - 1900};
	struct tm normal = *ret;
	timegm(&normal); // makes the 2nd of March of a 30th of February
	return normal.tm_mday == (int)day;
}

static bool take_time(struct scan *s, struct tm *ret)
{
	uint64_t hour, minute, second;

	if (!take_number(s, 2, 2, &hour) || !take_char(s, ':') || !take_number(s, 2, 2, &minute) ||
	    !take_char(s, ':') || !take_number(s, 2, 2, &second))
		return false;
	ret->tm_hour = (int)hour;
	ret->tm_min = (int)minute;
	ret->tm_sec = (int)second;
	return hour <= 23 && minute <= 59 && second <= 60;
}

static bool parse_rfc3339(struct scan s, uint64_t *ret_ns)
{
	struct tm tm;
	uint64_t ns;
	int64_t east_s;

	if (!take_date(&s, &tm) ||
	    !(take_char(&s, 'T') || take_char(&s, 't') || take_char(&s, ' ')) ||
	    !take_time(&s, &tm) || !take_fraction(&s, &ns) || !take_zone(&s, &east_s) ||
	    s.p != s.end)
		return false;
	int64_t seconds = (int64_t)timegm(&tm) - east_s;
	if (seconds < 0 || (uint64_t)seconds >= UINT64_MAX / NS_PER_S)
		return false;
	*ret_ns = (uint64_t)seconds * NS_PER_S + ns;
	return true;
}

bool api_since(struct str text, uint64_t now_ns, uint64_t *ret_ns)
{
	struct scan s = {text.p, text.p + text.len};
	uint64_t ns;

	if (text.len == 0 ||
	    !(parse_ago(s, now_ns, &ns) || parse_unix(s, &ns) || parse_rfc3339(s, &ns)))
		return false;
	*ret_ns = ns;
	return true;
}
