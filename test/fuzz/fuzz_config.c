/* fuzz_config.c - any bytes as a configuration.
 *
 * What is refused says why, at least once. What is accepted comes back from its printed form as
 * the same configuration.
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
	config_read(&c, text, len, &f);
	fclose(errors);
	assert((f.count > 0) == (said_len > 0));
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *once = read_and_print((const char *)data, size);

	if (!once)
		return 0;
	char *twice = read_and_print(once, strlen(once));
	assert(twice && strcmp(once, twice) == 0);
	free(twice);
	free(once);
	return 0;
}
