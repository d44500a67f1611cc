#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "page.h"

struct seen {
	struct buf text;
	unsigned count, limit;
};

static bool see(void *ctx, struct str item)
{
	struct seen *s = ctx;

	buf_append(&s->text, item.p, item.len);
	buf_append_byte(&s->text, '|');
	return ++s->count != s->limit;
}

static int read_page(const char *doc, unsigned limit, char items[512], uint64_t *ret_next)
{
	struct seen s = {.limit = limit};
	// A copy of exactly its size, so that a sanitizer sees what is read past it.
	size_t len = strlen(doc);
	char *copy = malloc(len ? len : 1);

	assert_non_null(copy);
	memcpy(copy, doc, len);
	buf_init(&s.text, 511);
	int err = page_each((struct str){copy, len}, "list", see, &s, ret_next);
	memcpy(items, s.text.data ? (char *)s.text.data : "", s.text.len);
	items[s.text.len] = '\0';
	buf_deinit(&s.text);
	free(copy);
	return err;
}

static void assert_page(const char *doc, const char *wanted, uint64_t wanted_next)
{
	char items[512];
	uint64_t next = 77;

	assert_int_equal(read_page(doc, 0, items, &next), 0);
	assert_string_equal(items, wanted);
	assert_true(next == wanted_next);
}

static void items_come_byte_for_byte(void **state)
{
	assert_page("{\"list\":[],\"next\":null}", "", 0);
	assert_page("{\"list\":[{\"a\":1.50},[],\"x\",3],\"next\":42}", "{\"a\":1.50}|[]|\"x\"|3|",
	            42);
	assert_page(" { \"next\" : 7 , \"list\" : [ 1 , 2 ] , \"more\" : {} } ", "1 |2 |", 7);
	assert_page("{\"other\":{\"list\":[9]},\"list\":[{\"b\":[1,2]}]}", "{\"b\":[1,2]}|", 0);
	assert_page("{\"list\":[1],\"next\":18446744073709551615}", "1|", UINT64_MAX);
}

static void brackets_and_quotes_in_text_are_text(void **state)
{
	assert_page("{\"a]\\\"\":\"}\",\"list\":[{\"s\":\"]}\\\"[{\\\\\"},2]}",
	            "{\"s\":\"]}\\\"[{\\\\\"}|2|", 0);
}

static void a_reader_may_stop_and_still_learns_the_next(void **state)
{
	char items[512];
	uint64_t next = 0;

	assert_int_equal(read_page("{\"list\":[1,2,3],\"next\":9}", 2, items, &next), 0);
	assert_string_equal(items, "1|2|");
	assert_int_equal(next, 9);
}

static void what_is_cut_short_is_malformed_wherever_it_ends(void **state)
{
	const char doc[] =
		"{\"a\":\"\\\"\",\"list\":[{\"s\":\"x\\\\\",\"t\":[1,{}]},2],\"next\":5}";
	char items[512], part[sizeof(doc)];
	uint64_t next = 77;

	assert_int_equal(read_page(doc, 0, items, &next), 0);
	for (size_t n = 0; n < sizeof(doc) - 1; n++) {
		memcpy(part, doc, n);
		part[n] = '\0';
		next = 77;
		assert_int_equal(read_page(part, 0, items, &next), ERR_FORMAT);
		assert_int_equal(next, 77);
	}
	assert_int_equal(read_page("{\"next\":5}", 0, items, &next), ERR_FORMAT);
	assert_int_equal(read_page("{\"list\":{}}", 0, items, &next), ERR_FORMAT);
	assert_int_equal(read_page("{\"list\":[1,]}", 0, items, &next), ERR_FORMAT);
	assert_int_equal(read_page("{\"list\":[1 ]]}", 0, items, &next), ERR_FORMAT);
	assert_int_equal(read_page("<html>", 0, items, &next), ERR_FORMAT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(items_come_byte_for_byte),
		cmocka_unit_test(brackets_and_quotes_in_text_are_text),
		cmocka_unit_test(a_reader_may_stop_and_still_learns_the_next),
		cmocka_unit_test(what_is_cut_short_is_malformed_wherever_it_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
