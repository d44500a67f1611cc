/* frames.h - the traces that the load generator sends, encoded before the clock starts.
 *
 * A trace is an agent's run with four or five children, LLM and tool calls in turn. Each frame of
 * it is a template with places of fixed width for the run id, the parent and the two times, so
 * that sending an event costs a few copies and one system call.
 *
 * Means over the traces, which the figures name: 400 bytes and 12 keys a frame (keys of all maps).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
	FRAME_MAX = 1024,
	TRACE_RUNS_MAX = 6,
	TRACE_STEPS_MAX = 2 * TRACE_RUNS_MAX,
	TRACE_SHAPES = 2,
};

struct frame {
	uint8_t bytes[FRAME_MAX];
	size_t len;
	size_t run_at;
	size_t unix_at;
	size_t mono_at;
	size_t parent_at; // 0: a root
	unsigned int keys;
};

/** One frame of a trace, and whose: run 0 is the root and the parent of the others. */
struct step {
	struct frame *frame;
	unsigned int run;
};

struct shape {
	struct step steps[TRACE_STEPS_MAX];
	unsigned int count;
};

/** Encodes all frames; returns the TRACE_SHAPES shapes, which live as long as the program. */
struct shape *frames_init(void);

/** The mean size in bytes and number of keys of the frames, over both shapes. */
void frames_means(double *ret_bytes, double *ret_keys);

/** Writes a hello, a flush or a bye into out of FRAME_MAX bytes; returns its length. */
size_t frames_hello(uint8_t *out);
size_t frames_flush(uint8_t *out, uint64_t token);
size_t frames_bye(uint8_t *out);

/** Puts ids and times into their places. */
void frame_patch(struct frame *f, const uint8_t run[16], const uint8_t root[16], uint64_t unix_ns,
                 uint64_t mono_ns);
