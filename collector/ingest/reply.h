/* reply.h - the frames that the collector sends. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { REPLY_MAX = 256 };

/** [5, token]. Returns the frame's length. */
size_t reply_flushed(uint8_t out[REPLY_MAX], uint64_t token);

/** [8, {code, message, frame}]. The texts are cut to fit. */
size_t reply_error(uint8_t out[REPLY_MAX], const char *code, const char *message, uint64_t frame);
