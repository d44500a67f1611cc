/* message.h - builds the protocol's messages, each as a whole frame in one fixed buffer.
 *
 * Texts are made UTF-8 and cut where they are too long; what was cut is named in the attribute
 * sidelight.cut with its full length. A message that does not fit leaves out.full set.
 */
#pragma once

#include "pack.h"
#include "sidelight.h"

#define MESSAGE_CUTS 32 // further ones are cut without a word

/* A text that was cut, and what it measured. */
struct cut {
	const char *key;
	uint64_t bytes;
};

struct message {
	uint8_t *frame; // where it is built
	size_t room;
	size_t max_value;
	struct pack out;
	struct cut cuts[MESSAGE_CUTS];
	size_t cut_count;
};

/** Whether all have a key, a type and a value, and there are not too many. */
bool sl_are_attrs(const struct sidelight_attr *attrs, size_t count);

/** All but the value of its last key, the process id. */
void sl_message_hello(struct message *m, const struct sidelight_options *o);

/** unix_ns and mono_ns of the fields are now where they are 0. */
void sl_message_start(struct message *m, const struct sidelight_run *run, uint64_t unix_ns,
                      const struct sidelight_start_fields *in);
void sl_message_end(struct message *m, const struct sidelight_run *run,
                    const struct sidelight_end_fields *in);
void sl_message_event(struct message *m, const struct sidelight_run *run,
                      const struct sidelight_event_fields *in);
void sl_message_flush(struct message *m, uint64_t token);
void sl_message_dropped(struct message *m, uint64_t count, const char *reason);
void sl_message_bye(struct message *m);

/* How a process ended: exactly one of the two is 0 or more; neither: it is only watched. */
struct ending {
	int exit, signal;
};
void sl_message_child(struct message *m, long pid, struct ending ending);

/** Writes the length before a message that is complete. */
void sl_pack_prefix(struct pack *p);

uint64_t sl_unix_now_ns(void);
