#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "core/id.h"

#define TRACEPARENT "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

static struct run_id run_of(const char *text)
{
	struct run_id run;

	run_id_of_text(&run, str_of(text));
	return run;
}

/* The numbers are those of proto/vectors/make.py, computed there by another hand. */
static void hash64_is_the_documented_one(void **state)
{
	assert_true(id_hash64(1, "run-42", 6) == 0xf9788825494cb65aull);
	assert_true(id_hash64(2, "run-42", 6) == 0xc84ccf82293f7a4dull);
	assert_true(id_hash64(0, "", 0) == 0xefd01f60ba992926ull);
}

static void a_uuid_is_its_bytes_in_either_case(void **state)
{
	static const uint8_t want[16] = {0x01, 0x92, 0xf5, 0xa1, 0x7c, 0x3e, 0x7b, 0x6d,
	                                 0x9a, 0x41, 0x5f, 0x0e, 0x8d, 0x2c, 0x4b, 0x10};
	struct run_id lower = run_of("0192f5a1-7c3e-7b6d-9a41-5f0e8d2c4b10");
	struct run_id upper = run_of("0192F5A1-7C3E-7B6D-9A41-5F0E8D2C4B10");

	assert_memory_equal(lower.b, want, 16);
	assert_memory_equal(upper.b, want, 16);
}

static void what_is_almost_a_uuid_is_hashed(void **state)
{
	static const char *const texts[] = {
		"0192f5a1-7c3e-7b6d-9a41-5f0e8d2c4b1g", "0192f5a1-7c3e-7b6d-9a4105f0e8d2c4b10",
		"0192f5a17-c3e-7b6d-9a41-5f0e8d2c4b10", "0192f5a1-7c3e-7b6d-9a41-5f0e8d2c4b100"};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct run_id run = run_of(texts[i]);
		uint64_t h = id_hash64(1, texts[i], strlen(texts[i]));
		assert_int_equal(run.b[0], h >> 56);
		assert_int_equal(run.b[7], h & 0xff);
	}
}

static void a_traceparent_gives_its_three_parts(void **state)
{
	uint8_t trace[16], parent[8], flags = 0;

	assert_true(traceparent_parse(STR(TRACEPARENT), trace, parent, &flags));
	assert_int_equal(trace[0], 0x0a);
	assert_int_equal(trace[15], 0x9c);
	assert_int_equal(parent[0], 0xb7);
	assert_int_equal(parent[7], 0x31);
	assert_int_equal(flags, 1);
}

static void a_later_version_may_go_on(void **state)
{
	const char *later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what";
	uint8_t trace[16], parent[8], flags;

	assert_true(traceparent_parse(str_of(later), trace, parent, &flags));
	assert_true(traceparent_parse((struct str){later, 55}, trace, parent, &flags));
	assert_false(traceparent_parse((struct str){later, 54}, trace, parent, &flags));
}

static void malformed_traceparents_change_nothing(void **state)
{
	static const char *const texts[] = {
		"",
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
		TRACEPARENT "-more",
		TRACEPARENT "0",
		"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
		"00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333x-01",
		"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01what",
	};
	uint8_t trace[16], parent[8], flags = 7;

	memset(trace, 0xaa, sizeof(trace));
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_false(traceparent_parse(str_of(texts[i]), trace, parent, &flags));
	assert_int_equal(trace[0], 0xaa);
	assert_int_equal(flags, 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hash64_is_the_documented_one),
		cmocka_unit_test(a_uuid_is_its_bytes_in_either_case),
		cmocka_unit_test(what_is_almost_a_uuid_is_hashed),
		cmocka_unit_test(a_traceparent_gives_its_three_parts),
		cmocka_unit_test(a_later_version_may_go_on),
		cmocka_unit_test(malformed_traceparents_change_nothing),
	};

	return cmocka_run_group_tests_name("id", tests, NULL, NULL);
}
