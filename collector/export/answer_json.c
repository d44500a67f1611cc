#include "export/answer_json.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

static const char *const rejected_keys[] = {
	"rejectedSpans",
	"rejectedLogRecords",
	"rejectedDataPoints",
};

/* A 64-bit number is a string in OTLP's JSON; a bare number is to be taken, too. */
static uint64_t number_of(const json_t *v)
{
	long long n = 0;

	if (json_is_integer(v))
		n = json_integer_value(v);
	else if (json_is_string(v))
		n = strtoll(json_string_value(v), NULL, 10);
	return n > 0 ? (uint64_t)n : 0;
}

static uint64_t rejected_in(const json_t *partial)
{
	for (size_t i = 0; i < sizeof(rejected_keys) / sizeof(*rejected_keys); i++) {
		uint64_t n = number_of(json_object_get(partial, rejected_keys[i]));
		if (n)
			return n;
	}
	return 0;
}

static void copy_message(struct json_answer *ret, const json_t *v)
{
	if (!json_is_string(v))
		return;
	size_t len = utf8_cut(json_string_value(v), json_string_length(v), JSON_MESSAGE_MAX);
	memcpy(ret->message, json_string_value(v), len);
	ret->message[len] = '\0';
}

int json_answer_read(struct json_answer *ret, struct str body)
{
	json_t *root = body.len <= JSON_ANSWER_MAX ? json_loadb(body.p, body.len, 0, NULL) : NULL;

	*ret = (struct json_answer){0};
	if (!json_is_object(root)) {
		json_decref(root);
		return ERR_FORMAT;
	}
	const json_t *partial = json_object_get(root, "partialSuccess");
	ret->rejected = rejected_in(partial);
	copy_message(ret, json_object_get(root, "message"));
	copy_message(ret, json_object_get(partial, "errorMessage"));
	json_decref(root);
	return 0;
}
