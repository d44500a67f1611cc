#include "emit_values.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/clock.h"
#include "core/id.h"
#include "http/api.h"
#include "term.h"

static uint64_t unit_ns(const char *unit)
{
	static const struct {
		const char *name;
		uint64_t ns;
	} units[] = {{"ns", 1},
	             {"us", NS_PER_US},
	             {"ms", NS_PER_MS},
	             {"s", NS_PER_S},
	             {"m", 60 * NS_PER_S},
	             {"h", 3600 * NS_PER_S},
	             {"d", 86400 * NS_PER_S}};

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (strcmp(unit, units[i].name) == 0)
			return units[i].ns;
	return 0;
}

bool emit_duration(const char *text, uint64_t *ret_ns)
{
	char *unit;

	errno = 0;
	double n = strtod(text, &unit);
	double ns = n * (double)unit_ns(unit);
	bool ok = *text >= '0' && *text <= '9' && !errno && unit_ns(unit) && ns < 1e18;
	*ret_ns = ok ? (uint64_t)(ns + 0.5) : 0;
	if (!ok)
		complain("--duration %s: give 350ms, 1.5s or 2m", text);
	return ok;
}

bool emit_time(const char *text, uint64_t *ret_ns)
{
	if (api_since(str_of(text), clock_unix_ns(), ret_ns))
		return true;
	complain("--start %s: give 5m, unix seconds, or a time as 2026-11-24T01:02:03Z", text);
	return false;
}

bool emit_run(const char *text, struct sidelight_run *ret)
{
	struct run_id id;

	if (strlen(text) == 32 && hex_read(ret->id, sizeof(ret->id), text))
		return true;
	if (!*text || strlen(text) > CAP_RUN_ID || !utf8_is_valid(text, strlen(text))) {
		complain("%s is no run id: give what emit start printed", *text ? text : "\"\"");
		return false;
	}
	run_id_of_text(&id, str_of(text));
	memcpy(ret->id, id.b, sizeof(ret->id));
	return true;
}

/* KEY:=VALUE's value. */
static bool parse_value(struct sidelight_attr *a, const char *text)
{
	char *end;

	if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0) {
		*a = sidelight_bool(a->key, *text == 't');
		return true;
	}
	errno = 0;
	*a = sidelight_int(a->key, strtoll(text, &end, 10));
	if (*text && !*end && !errno)
		return true;
	*a = sidelight_double(a->key, strtod(text, &end));
	return *text && !*end;
}

bool emit_pair(struct emit_pairs *p, const char *flag, char *text, bool is_count)
{
	char *equals = strchr(text, '=');
	struct sidelight_attr *a = &p->list[p->count];

	if (p->count == EMIT_PAIRS_MAX) {
		complain("--%s: %d are the most", flag, EMIT_PAIRS_MAX);
		return false;
	}
	if (!equals || equals == text) {
		complain("--%s %s: give KEY=VALUE", flag, text);
		return false;
	}
	bool is_typed = !is_count && equals[-1] == ':';
	equals[is_typed ? -1 : 0] = '\0';
	for (size_t i = 0; i < p->count; i++)
		if (strcmp(p->list[i].key, text) == 0) {
			complain("--%s: %s is there twice", flag, text);
			return false;
		}
	a->key = text;
	p->count++;
	if (!is_typed && !is_count)
		*a = sidelight_string(text, equals + 1);
	else if (!parse_value(a, equals + 1) || (is_count && a->type != SIDELIGHT_INT)) {
		complain("--%s %s: %s is no number", flag, text, equals + 1);
		return false;
	}
	return true;
}
