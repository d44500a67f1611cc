/* cmd.h - what the subcommands share.
 *
 * One file a subcommand. Each returns the exit code and has said on stderr what went wrong.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "core/kind.h"
#include "source.h"
#include "term.h"

enum exit_code { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_NOTHING = 3 };

struct cmd {
	// from the command line
	const char *id;    // of a trace
	uint64_t since_ns; // unix; 0: everything
	size_t limit;      // 0: all
	unsigned statuses; // bits 1 << enum run_status; 0: all
	bool json, content, spans;
	// ready to use
	struct source *source;
	struct term term;
	bool has_seen_enough; // whoever reads stdout has gone away
	struct buf out;
};

/* Those with arguments of their own. */
int cmd_emit(int argc, char **argv);
int cmd_run(int argc, char **argv);

int cmd_traces(struct cmd *c);
int cmd_trace(struct cmd *c);
int cmd_dump(struct cmd *c);
int cmd_check(struct cmd *c);
int cmd_ps(struct cmd *c);

/** Writes what out holds. The exit code: a reader that has gone away has seen enough. */
int cmd_write(struct cmd *c);

/** As cmd_write(), when err is 0; else says what err is. */
int cmd_finish(struct cmd *c, int err);
