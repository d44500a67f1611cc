#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/key_set.h"

/* Texts of one length that differ in one byte, at each place of it. */
static void keys_differ_in_any_byte(void **state)
{
	char a[40], b[40];

	for (size_t len = 0; len < sizeof(a); len++) {
		memset(a, 'x', sizeof(a));
		memcpy(b, a, sizeof(b));
		assert_true(key_eq((struct str){a, len}, (struct str){b, len}));
		for (size_t at = 0; at < len; at++) {
			b[at] = 'y';
			assert_false(key_eq((struct str){a, len}, (struct str){b, len}));
			b[at] = 'x';
		}
	}
	assert_false(key_eq(STR("abc"), STR("abcd")));
}

/* As many as there may be: each is taken once, and found the second time. */
static void a_full_set_knows_all_its_keys(void **state)
{
	struct key_set *set = malloc(sizeof(*set));
	char(*texts)[16] = calloc(CAP_ATTRS, sizeof(*texts));

	assert_non_null(set);
	assert_non_null(texts);
	key_set_init(set, CAP_ATTRS);
	for (unsigned i = 0; i < CAP_ATTRS; i++) {
		int len = snprintf(texts[i], sizeof(texts[i]), "%u", i * 7919);
		assert_true(key_set_add(set, (struct str){texts[i], (size_t)len}));
	}
	for (unsigned i = 0; i < CAP_ATTRS; i++)
		assert_false(key_set_add(set, str_of(texts[i])));
	free(texts);
	free(set);
}

static void a_text_is_utf8_to_its_last_byte(void **state)
{
	char text[24];

	for (size_t len = 1; len < sizeof(text); len++)
		for (size_t at = 0; at < len; at++) {
			memset(text, 'x', sizeof(text));
			assert_true(is_utf8((struct str){text, len}));
			text[at] = '\x80';
			assert_false(is_utf8((struct str){text, len}));
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_differ_in_any_byte),
		cmocka_unit_test(a_full_set_knows_all_its_keys),
		cmocka_unit_test(a_text_is_utf8_to_its_last_byte),
	};

	return cmocka_run_group_tests_name("key_set", tests, NULL, NULL);
}
