/* sidelight.h - tell the Sidelight collector what an agent does.
 *
 * Each run (a request, an LLM call, a tool) is one start and one end; the collector beside the
 * agent pairs them into spans and metrics. No call here blocks, prints, aborts or starts a
 * thread, and none allocates after sidelight_open(). While the collector is away, events wait in
 * a bounded buffer; what does not fit is dropped, counted and reported when it is back.
 *
 * Every function may be called from any thread, and none is a cancellation point. Nor does fork()
 * harm: the child makes a connection of its own and never sends what its parent had waiting. A
 * handle of NULL is allowed everywhere, so that an agent need not care whether sidelight_open()
 * succeeded.
 *
 * Functions return 0 or a negative errno: -EINVAL for a wrong argument, -ENOBUFS or -EMSGSIZE for
 * an event that was dropped and counted because the buffer was full or the event too large.
 */
#ifndef SIDELIGHT_H
#define SIDELIGHT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef SIDELIGHT_API
#define SIDELIGHT_API __attribute__((visibility("default")))
#endif

struct sidelight;

/** A run's identity; also a parent's, over processes and machines. */
struct sidelight_run {
	uint8_t id[16];
};

enum sidelight_type { SIDELIGHT_STRING, SIDELIGHT_INT, SIDELIGHT_DOUBLE, SIDELIGHT_BOOL };

/** A named value; made by the four functions below. The keys of one list differ. */
struct sidelight_attr {
	const char *key;
	enum sidelight_type type;
	union {
		const char *s;
		int64_t i; /* also of a bool: 0 or 1 */
		double d;
	} value;
};

static inline struct sidelight_attr sidelight_string(const char *key, const char *value)
{
	struct sidelight_attr a;
	a.key = key;
	a.type = SIDELIGHT_STRING;
	a.value.s = value;
	return a;
}

static inline struct sidelight_attr sidelight_int(const char *key, int64_t value)
{
	struct sidelight_attr a;
	a.key = key;
	a.type = SIDELIGHT_INT;
	a.value.i = value;
	return a;
}

static inline struct sidelight_attr sidelight_double(const char *key, double value)
{
	struct sidelight_attr a;
	a.key = key;
	a.type = SIDELIGHT_DOUBLE;
	a.value.d = value;
	return a;
}

static inline struct sidelight_attr sidelight_bool(const char *key, int value)
{
	struct sidelight_attr a;
	a.key = key;
	a.type = SIDELIGHT_BOOL;
	a.value.i = value != 0;
	return a;
}

/** All members may be 0 or NULL. */
struct sidelight_options {
	const char *socket;  /* else $SIDELIGHT_SOCKET, else where the collector's default is */
	const char *service; /* service.name; else the program's name */
	const struct sidelight_attr *resource;
	size_t resource_count;
	size_t buffer_bytes;    /* what may wait: 1 MiB */
	size_t max_value_bytes; /* a longer text is cut and marked: 64 KiB */
	/* For a short-lived helper of a script: the process above this one, the script's, that the
	 * runs end with, if nothing ends them. They outlive the handle. 0: this process. */
	long owner;
};

/** All members may be 0 or NULL: absent. Texts are UTF-8; where they are not, a bad byte is sent
 * as '?'. docs/protocol.md has the meaning of each. */
struct sidelight_start_fields {
	const char *kind; /* agent chain llm tool retriever embedding other */
	const char *name;
	const struct sidelight_run *parent;
	const char *traceparent;
	int gather; /* true: roots of its trace from other processes are part of its request */
	const char *session;
	const char *user;
	const char *model;
	const char *provider;
	const char *input;
	const char *const *tags;
	size_t tag_count;
	const struct sidelight_attr *attrs;
	size_t attr_count;
	const struct sidelight_run *run; /* an id of your own; else a new one is made */
	uint64_t unix_ns, mono_ns;       /* 0: now */
};

struct sidelight_end_fields {
	const char *output;
	const struct sidelight_attr *usage; /* token counts in the provider's own words */
	size_t usage_count;
	const char *model;
	const char *finish;
	const char *error_type; /* any of the three makes the run an error */
	const char *error_message;
	const char *error_stack;
	const struct sidelight_attr *attrs;
	size_t attr_count;
	uint64_t unix_ns, mono_ns; /* 0: now */
};

struct sidelight_event_fields {
	const char *name; /* required: first_token, retry, … */
	const struct sidelight_attr *attrs;
	size_t attr_count;
	uint64_t unix_ns, mono_ns; /* 0: now */
};

/** Never connects, so it does not fail while the collector is away. NULL with errno: ENOMEM,
 * EINVAL, or ENAMETOOLONG for a socket's path. options may be NULL. */
SIDELIGHT_API struct sidelight *sidelight_open(const struct sidelight_options *options);

/** Says bye, sends what the socket takes at once, frees. Call sidelight_flush() first to wait. */
SIDELIGHT_API void sidelight_close(struct sidelight *sl);

/** Starts a run and writes its id to *ret_run, also when the event was dropped; all zeros on
 * -EINVAL. */
SIDELIGHT_API int sidelight_start(struct sidelight *sl, struct sidelight_run *ret_run,
                                  const struct sidelight_start_fields *fields);

/** Ends a run. fields may be NULL. */
SIDELIGHT_API int sidelight_end(struct sidelight *sl, const struct sidelight_run *run,
                                const struct sidelight_end_fields *fields);

/** Something that happened during a run. */
SIDELIGHT_API int sidelight_event(struct sidelight *sl, const struct sidelight_run *run,
                                  const struct sidelight_event_fields *fields);

/** Waits until all before it is in the collector's durable log: the only call that waits, and at
 * most timeout_ms. -ETIMEDOUT, or -ECONNRESET when the connection broke and it can't be known. */
SIDELIGHT_API int sidelight_flush(struct sidelight *sl, int timeout_ms);

/** For a parent: it will tell how this child of its own ends. When the child's connection breaks,
 * the collector waits two seconds for that word before it judges the child's open runs. */
SIDELIGHT_API int sidelight_watch(struct sidelight *sl, long pid);

/** How the child ended, as waitpid() said it. -EINVAL for one that has only stopped. */
SIDELIGHT_API int sidelight_exited(struct sidelight *sl, long pid, int wait_status);

/** How many events were dropped since sidelight_open(). */
SIDELIGHT_API uint64_t sidelight_dropped(struct sidelight *sl);

#ifdef __cplusplus
}
#endif

#endif
