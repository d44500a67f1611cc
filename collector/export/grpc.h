/* grpc.h - gRPC's unary call over HTTP/2: the frame around a message, and what a status means for
 * the items of a request. Pure.
 *
 * The verdict is grpc-status, in the headers or in the trailers, whatever HTTP said.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "export/answer.h"

enum { GRPC_HEAD_SIZE = 5 };

/** The head of a message: compressed or not, and its length. */
void grpc_head(uint8_t out[GRPC_HEAD_SIZE], size_t len, bool compressed);

/** Judges an answer: VERDICT_NONE where it broke off before it said anything. */
struct verdict grpc_judge(const struct answer *a, enum otlp_signal signal);

/** Judges a stream that was reset with this HTTP/2 error code. */
struct verdict grpc_judge_reset(uint32_t http2_error);
