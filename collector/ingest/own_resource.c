#include "ingest/own_resource.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uv.h>

#include "base/clock.h"
#include "core/encode.h"
#include "core/id.h"

/* A random UUID: which of many collectors, and which start of it. */
static void instance_id(char ret[37])
{
	uint8_t id[16];
	char hex[32];

	if (uv_random(NULL, NULL, id, sizeof(id), 0, NULL) < 0) {
		uint64_t words[] = {clock_unix_ns(), clock_mono_ns()};
		memcpy(id, words, sizeof(id));
	}
	id[6] = (uint8_t)((id[6] & 0x0f) | 0x40);
	id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
	hex_write(hex, id, sizeof(id));
	snprintf(ret, 37, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
}

int own_resource(struct buf *out, const struct config *c)
{
	size_t count = c->service_attribute_count;
	struct resource_pair *extra = calloc(count + 2, sizeof(*extra));
	char id[37];

	if (!extra)
		return -ENOMEM;
	instance_id(id);
	for (size_t i = 0; i < count; i++)
		extra[i] = (struct resource_pair){str_of(c->service_attributes[i].key),
		                                  str_of(c->service_attributes[i].value)};
	extra[count] = (struct resource_pair){STR("service.version"), STR(SIDELIGHT_VERSION)};
	extra[count + 1] = (struct resource_pair){STR("service.instance.id"), str_of(id)};
	encode_resource(out, str_of(c->service_name ? c->service_name : "sidelight"),
	                (struct str){0}, STR(SIDELIGHT_VERSION), extra, count + 2);
	free(extra);
	return buf_error(out);
}
