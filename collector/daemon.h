/* daemon.h - the modules, built in order and torn down in reverse. */
#pragma once

#include "base/err.h"
#include "config.h"

/** Serves until SIGTERM or SIGINT. Returns an exit code: 0, 1 failed, 2 config error. SIGHUP reads
 * the configuration again and says what of it needs a restart. */
int daemon_run(struct config *config, const struct config_flags *flags);
