#include "export/gzip.h"

#include <libdeflate.h>

/* What the higher levels save in bytes they cost several times over in time: docs/exporters.md. */
enum { LEVEL = 1 };

struct gzip *gzip_new(void)
{
	return (struct gzip *)libdeflate_alloc_compressor(LEVEL);
}

void gzip_free(struct gzip *g)
{
	if (g)
		libdeflate_free_compressor((struct libdeflate_compressor *)g);
}

bool gzip_pack(struct gzip *g, struct buf *out, struct str body)
{
	buf_clear(out);
	if (body.len < GZIP_LEAST)
		return false;
	// No more room than the body has: what doesn't get smaller is not worth it.
	uint8_t *room = buf_extend(out, body.len);
	if (!room)
		return false;
	out->len = libdeflate_gzip_compress((struct libdeflate_compressor *)g, body.p, body.len,
	                                    room, body.len);
	return out->len > 0;
}
