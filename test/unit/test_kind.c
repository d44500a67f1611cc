#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/stats.h"
#include "core/kind.h"

static void every_kind_is_known_by_its_word(void **state)
{
	for (int i = 0; i < KIND_COUNT; i++)
		assert_int_equal(kind_of(str_of(kind_word((enum run_kind)i))), i);
	assert_int_equal(kind_of(STR("planner")), KIND_OTHER);
	assert_int_equal(kind_of(STR("LLM")), KIND_OTHER);
	assert_int_equal(kind_of((struct str){0}), KIND_OTHER);
}

/* Their numbers are on disk. */
static void what_is_stored_keeps_its_number(void **state)
{
	static const char *const kinds[] = {"other", "agent",     "chain",    "llm",
	                                    "tool",  "retriever", "embedding"};
	static const char *const statuses[] = {"running", "ok", "error", "cancelled"};

	for (int i = 0; i < KIND_COUNT; i++)
		assert_string_equal(kind_word((enum run_kind)i), kinds[i]);
	for (int i = 0; i < STATUS_COUNT; i++)
		assert_string_equal(status_word((enum run_status)i), statuses[i]);
	assert_string_equal(kind_word((enum run_kind)200), "other");
	assert_string_equal(status_word((enum run_status)200), "error");
}

static void every_refusal_has_a_label_of_its_own(void **state)
{
	for (int a = REFUSAL_NONE + 1; a < REFUSAL_COUNT; a++)
		for (int b = REFUSAL_NONE + 1; b < a; b++)
			assert_string_not_equal(refusal_label((enum refusal)a),
			                        refusal_label((enum refusal)b));
	assert_string_equal(refusal_label(REFUSAL_NONE), "none");
	assert_string_equal(refusal_label(REFUSAL_COUNT), "none");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind_is_known_by_its_word),
		cmocka_unit_test(what_is_stored_keeps_its_number),
		cmocka_unit_test(every_refusal_has_a_label_of_its_own),
	};

	return cmocka_run_group_tests_name("kind", tests, NULL, NULL);
}
