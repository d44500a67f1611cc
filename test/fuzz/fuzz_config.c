/* fuzz_config.c - any bytes as a configuration, as a file of prices, and as a variable's list of
 * headers or attributes.
 *
 * What is refused says why, at least once. What is accepted comes back from its printed form as
 * the same configuration. Of a list, every entry that is accepted is a name with one line of text.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "config_parts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads a text. Returns the configuration as printed, NULL after a fault. */
static char *read_and_print(const char *text, size_t len)
{
	struct config c = {0};
	char *said = NULL, *printed = NULL;
	size_t said_len, printed_len;
	FILE *errors = open_memstream(&said, &said_len);
	assert(errors);
	struct faults f = {.out = errors, .file = "fuzz.yaml"};

	assert(keys_default(false, &c) == 0);
	config_read(&c, text, len, config_read_document, &f);
	fclose(errors);
	assert((f.count > 0) == (said_len > 0));
	for (size_t i = 0; i < c.exporter_count; i++)
		assert(exporter_config_equal(&c.exporters[i], &c.exporters[i]));
	if (f.count == 0) {
		FILE *out = open_memstream(&printed, &printed_len);
		assert(out);
		config_print(&c, out);
		fclose(out);
	}
	config_free(&c);
	free(said);
	return printed;
}

/* The same bytes as a file of prices. What is accepted has bounds, and is equal to itself. */
static void read_prices(const char *text, size_t len)
{
	struct config c = {0};
	char *said = NULL;
	size_t said_len;
	FILE *errors = open_memstream(&said, &said_len);
	assert(errors);
	struct faults f = {.out = errors, .file = "prices.yaml"};

	config_read(&c, text, len, config_read_prices, &f);
	fclose(errors);
	assert((f.count > 0) == (said_len > 0));
	assert(c.prices.count <= CAP_PRICES);
	assert(price_list_equal(&c.prices, &c.prices));
	for (size_t i = 0; f.count == 0 && i < c.prices.count; i++)
		assert(c.prices.prices[i].model && c.prices.prices[i].input <= PRICE_MAX);
	config_free(&c);
	free(said);
}

static size_t count_of(const char *text, char c)
{
	size_t n = 0;

	for (; *text; text++)
		n += *text == c;
	return n;
}

static void read_list(const char *text, enum list_kind kind)
{
	static const struct place at = {.path = "LIST"};
	struct config_pair *pairs;
	char *said = NULL;
	size_t count, said_len;
	FILE *errors = open_memstream(&said, &said_len);
	assert(errors);
	struct faults f = {.out = errors, .file = ""};

	config_read_list(text, kind, &at, &f, &pairs, &count);
	fclose(errors);
	assert(f.count == (said_len > 0));
	assert(f.count > 0 || count == 1 + count_of(text, ','));
	for (size_t i = 0; i < count; i++)
		assert(pairs[i].key[0] != '\0' && !text_fault(pairs[i].value));
	config_free_pairs(pairs, count);
	free(said);
}

static void read_lists(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size);

	assert(text);
	read_list(text, LIST_HEADERS);
	read_list(text, LIST_ATTRIBUTES);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	read_lists(data, size);
	read_prices((const char *)data, size);
	char *once = read_and_print((const char *)data, size);

	if (!once)
		return 0;
	char *twice = read_and_print(once, strlen(once));
	assert(twice && strcmp(once, twice) == 0);
	free(twice);
	free(once);
	return 0;
}
