#include "runs_fixture.h"

#include "core/usage.h"

/* proto/vectors/usage.json: each provider's own map, and what is to be understood of it. */
static json_t *vectors(void)
{
	const char *path = SOURCE_ROOT "/proto/vectors/usage.json";
	json_error_t error;
	json_t *list = json_load_file(path, JSON_REJECT_DUPLICATES, &error);

	if (!list)
		fail_msg("%s:%d: %s", path, error.line, error.text);
	assert_true(json_array_size(list) > 50);
	return list;
}

/* What is not there is unknown. */
static int64_t wanted(const json_t *want, const char *count)
{
	const json_t *v = json_object_get(want, count);

	return v ? json_integer_value(v) : USAGE_UNKNOWN;
}

static void check(const char *name, const json_t *want, const struct usage *got)
{
	size_t said = 0;

#define X(count)                                                                                   \
	said += json_object_get(want, #count) != NULL;                                             \
	if (got->count != wanted(want, #count))                                                    \
		fail_msg("%s: %s is %lld, not %lld", name, #count, (long long)got->count,          \
		         (long long)wanted(want, #count));
	USAGE_COUNTS(X)
#undef X
	said += json_object_get(want, "estimated") != NULL;
	assert_int_equal(got->estimated, json_is_true(json_object_get(want, "estimated")));
	assert_int_equal(said, json_object_size(want)); // no count that we don't have
	assert_int_equal(usage_is_known(got), json_object_get(want, "total") != NULL);
}

static void test_every_providers_words_are_understood(void **state)
{
	json_t *list = vectors(), *v;
	size_t i;

	(void)state;
	json_array_foreach(list, i, v)
	{
		struct bytes map = packed_json(json_object_get(v, "usage"));
		struct usage got;
		assert_non_null(json_string_value(json_object_get(v, "source")));
		usage_read(&got, str_of_bytes(map));
		free(map.p);
		check(json_string_value(json_object_get(v, "name")), json_object_get(v, "want"),
		      &got);
	}
	json_decref(list);
}

static void test_what_is_no_map_is_no_usage(void **state)
{
	struct bytes list = packed("[1,2]");
	struct usage u;

	(void)state;
	usage_read(&u, (struct str){0});
	assert_false(usage_is_known(&u));
	usage_read(&u, str_of_bytes(list));
	assert_false(usage_is_known(&u));
	free(list.p);
}

static void test_any_map_cut_anywhere_is_read_within_its_bounds(void **state)
{
	json_t *list = vectors(), *v;
	size_t i;

	(void)state;
	json_array_foreach(list, i, v)
	{
		struct bytes map = packed_json(json_object_get(v, "usage"));
		for (size_t len = 1; len < map.len; len++) {
			struct bytes cut = copy_of((struct str){map.p, len});
			struct usage u;
			usage_read(&u, str_of_bytes(cut));
			free(cut.p);
		}
		free(map.p);
	}
	json_decref(list);
}

static void test_sums_add_what_is_known(void **state)
{
	struct usage sum, a, b;

	(void)state;
	usage_init(&sum);
	usage_init(&a);
	usage_init(&b);
	a.input = a.total = 1;
	a.cache_write = 2;
	b.input = 3;
	b.output = 4;
	b.total = 7;
	b.reasoning = 0;
	b.estimated = true;
	usage_add(&sum, &a);
	assert_false(sum.estimated);
	usage_add(&sum, &b);
	assert_int_equal(sum.input, 4);
	assert_int_equal(sum.output, 4);
	assert_int_equal(sum.total, 8);
	assert_int_equal(sum.cache_read, USAGE_UNKNOWN);
	assert_int_equal(sum.cache_write, 2);
	assert_int_equal(sum.reasoning, 0);
	assert_int_equal(sum.audio_input, USAGE_UNKNOWN);
	assert_true(sum.estimated);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_providers_words_are_understood),
		cmocka_unit_test(test_what_is_no_map_is_no_usage),
		cmocka_unit_test(test_any_map_cut_anywhere_is_read_within_its_bounds),
		cmocka_unit_test(test_sums_add_what_is_known),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
