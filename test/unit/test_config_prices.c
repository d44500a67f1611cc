#include "config_fixture.h"

#include <sys/stat.h>

#define PRICE_RULE ", must be a number from 0 to 1000000 of at most 6 decimals, like 2.50"
#define MODEL(fields) "models: [{model: m, input: 1, " fields "}]"

/* The file of prices, and the configuration that names it. */
static struct loaded load_prices(const char *prices)
{
	write_file("p.yaml", prices, strlen(prices));
	return load("prices: p.yaml");
}

static void prices_are_read(void **state)
{
	struct loaded l = load_prices("currency: EUR\n"
	                              "models:\n"
	                              "  - {model: big*, provider: p, input: 2.50, output: 10,\n"
	                              "     cached_input: 0.000001, cache_write: 1000000}\n"
	                              "  - {model: vec, input: 0}\n");
	const struct price_list *list = &l.config.prices;

	assert_string_equal(l.errors, "");
	assert_string_equal(list->currency, "EUR");
	assert_int_equal(list->count, 2);
	assert_string_equal(list->prices[0].model, "big*");
	assert_string_equal(list->prices[0].provider, "p");
	assert_int_equal(list->prices[0].input, 2500000);
	assert_int_equal(list->prices[0].output, 10000000);
	assert_int_equal(list->prices[0].cached_input, 1);
	assert_int_equal(list->prices[0].cache_write, 1000000000000);
	assert_null(list->prices[1].provider);
	assert_int_equal(list->prices[1].input, 0);
	assert_true(list->prices[1].output == PRICE_NONE);
	assert_true(list->prices[1].cached_input == PRICE_NONE);
	assert_true(list->prices[1].cache_write == PRICE_NONE);
	unload(&l);
	l = load_prices("models:\n");
	assert_string_equal(l.errors, "");
	assert_int_equal(l.config.prices.count, 0);
	unload(&l);
}

/* As p.yaml says it: the file's own name and place are in the message. */
static void what_is_wrong_is_said_of_the_file_of_prices(void **state)
{
	static const struct bad bad[] = {
		{MODEL("output: -1"), "1:39: models[0].output: '-1' is not a price" PRICE_RULE},
		{MODEL("output: 1e3"), "1:39: models[0].output: '1e3' is not a price" PRICE_RULE},
		{MODEL("output: .5"), "1:39: models[0].output: '.5' is not a price" PRICE_RULE},
		{MODEL("output: 1."), "1:39: models[0].output: '1.' is not a price" PRICE_RULE},
		{MODEL("output: $1"), "1:39: models[0].output: '$1' is not a price" PRICE_RULE},
		{MODEL("output: 0.1234567"),
	         "1:39: models[0].output: '0.1234567' has too many decimals" PRICE_RULE},
		{MODEL("output: 1000000.000001"),
	         "1:39: models[0].output: '1000000.000001' is too large" PRICE_RULE},
		{MODEL("output: 99999999999999999999"),
	         "1:39: models[0].output: '99999999999999999999' is too large" PRICE_RULE},
		{MODEL("output: "), "1:39: models[0].output: is empty" PRICE_RULE},
		{MODEL("output: []"), "1:39: models[0].output: is a list" PRICE_RULE},
		{MODEL("ouput: 1"), "1:31: models[0].ouput: unknown key, did you mean 'output'?"},
		{MODEL("input: 1"), "1:31: models[0].input: duplicate key, first on line 1"},
		{"models: [{model: 'a*b', input: 1}]", "1:18: models[0].model: 'a*b' has a * that "
	                                               "is not its end, must be a model's name, "
	                                               "or how it begins and a *"},
		{"models: [{input: 1}]", "1:10: models[0]: has no model, must have one"},
		{"models: [{model: m}]", "1:10: models[0]: has no input, must have one"},
		{"models: [m]", "1:10: models[0]: is text, must be a mapping"},
		{"models: {}",
	         "1:9: models: is a mapping, must be a list of mappings, each with a model and its "
	         "input"},
		{"cached_input: 1",
	         "1:1: cached_input: unknown key, did you mean 'models[].cached_input'?"},
		{"http: 1", "1:1: http: unknown key, must be one of currency, models"},
		{"currency: sixteen letters!",
	         "1:11: currency: 'sixteen letters!' is too long, must be "
	         "text of 1 to 15 bytes"},
		{"[]", "1:1: the file is a list, must be a mapping"},
		{"", "1:9: prices: is an empty file, must be a file that can be read"},
		{"# none\n", "1:1: the file is empty, must be a mapping"},
		{"a: [", "2:1: is not YAML: did not find expected node content"},
	};
	char *directory = getcwd(NULL, 0), errors[1024];

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct loaded l = load_prices(bad[i].yaml);
		if (*bad[i].yaml)
			snprintf(errors, sizeof(errors), "%s/p.yaml:%s\n", directory, bad[i].error);
		else
			snprintf(errors, sizeof(errors), "t.yaml:%s\n", bad[i].error);
		assert_string_equal(l.errors, errors);
		assert_int_equal(l.rc, -EINVAL);
		assert_int_equal(l.config.prices.count, 0);
		unload(&l);
	}
	free(directory);
}

static void a_file_that_is_not_there_is_said_of_the_configuration(void **state)
{
	static const struct bad bad[] = {
		{"prices: none.yaml",
	         "1:9: prices: does not exist, must be a file that can be read"},
		{"prices: .", "1:9: prices: is not a plain file, must be a file that can be read"},
		{"prices: /dev/null",
	         "1:9: prices: is not a plain file, must be a file that can be read"},
		{"prices: ''", "1:9: prices: '' is empty, must be a path of 1 to 4000 bytes"},
		{"prices: {models: []}", "1:9: prices: is a mapping, must be a path of 1 to 4000 "
	                                 "bytes"},
		{"currency: USD",
	         "1:1: currency: unknown key, must be one of service, ingest, store, "
	         "capture, spans, exporters, http, prices"},
	};

	REFUSES_ALL(bad);
}

/* The faults of a configuration after its prices are its own again. */
static void faults_of_both_files_are_said_at_once(void **state)
{
	char *directory = getcwd(NULL, 0), errors[1024];

	write_file("p.yaml", "x: 1", 4);
	snprintf(errors, sizeof(errors),
	         "%s/p.yaml:1:1: x: unknown key, must be one of currency, models\n"
	         "t.yaml:2:7: http: is text, must be a mapping\n",
	         directory);
	refuses("prices: p.yaml\nhttp: x\n", errors);
	free(directory);
}

static void there_is_a_bound(void **state)
{
	static char text[64 * KIB];

	for (unsigned count = CAP_PRICES; count <= CAP_PRICES + 1; count++) {
		size_t len = (size_t)snprintf(text, sizeof(text), "models:\n");
		for (unsigned i = 0; i < count; i++)
			len += (size_t)snprintf(text + len, sizeof(text) - len,
			                        "- {model: m%u, input: 1}\n", i);
		struct loaded l = load_prices(text);
		assert_int_equal(l.rc, count > CAP_PRICES ? -EINVAL : 0);
		assert_int_equal(l.config.prices.count, count > CAP_PRICES ? 0 : count);
		if (count > CAP_PRICES)
			assert_non_null(strstr(l.errors, ":2:1: models: has 1025 models, must have "
			                                 "at most 1024\n"));
		unload(&l);
	}
}

/* A relative path begins at the configuration's directory, and is absolute where it is printed. */
static void the_file_is_found_beside_the_configuration(void **state)
{
	static const char prices[] = "models: [{model: m, input: 1}]";
	char *directory = getcwd(NULL, 0), line[1024];

	assert_int_equal(mkdir("below", 0700), 0);
	write_file("below/q.yaml", prices, sizeof(prices) - 1);
	write_file("below/t.yaml", "prices: q.yaml", strlen("prices: q.yaml"));
	struct loaded l = load_flags(&(struct config_flags){.config = "below/t.yaml"});
	assert_string_equal(l.errors, "");
	assert_int_equal(l.config.prices.count, 1);
	snprintf(line, sizeof(line), "\nprices: \"%s/below/q.yaml\" # models: 1\n", directory);
	char *printed = print(&l.config);
	assert_non_null(strstr(printed, line));
	struct loaded again = load_good(printed);
	assert_true(price_list_equal(&l.config.prices, &again.config.prices));
	free(printed);
	unload(&again);
	unload(&l);
	unlink("below/q.yaml");
	unlink("below/t.yaml");
	rmdir("below");
	free(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(prices_are_read, setup),
		cmocka_unit_test_setup(what_is_wrong_is_said_of_the_file_of_prices, setup),
		cmocka_unit_test_setup(a_file_that_is_not_there_is_said_of_the_configuration,
	                               setup),
		cmocka_unit_test_setup(faults_of_both_files_are_said_at_once, setup),
		cmocka_unit_test_setup(there_is_a_bound, setup),
		cmocka_unit_test_setup(the_file_is_found_beside_the_configuration, setup),
	};

	if (!enter_directory())
		return 1;
	int rc = cmocka_run_group_tests(tests, NULL, NULL);
	unlink("p.yaml");
	leave_directory();
	return rc;
}
