/* listen.h - the listening sockets of the HTTP server. */
#pragma once

#include <stdint.h>

#include "base/err.h"

/** A TCP listener on a numeric address or a name. port 0 picks a free one; *ret_port says which.
 * Returns the descriptor, non-blocking. -EINVAL: no such host. */
MUST_CHECK int listen_tcp(const char *host, uint16_t port, uint16_t *ret_port);

/** A Unix listener whose path appears only when a connect succeeds and with its final permissions.
 * A dead socket there is replaced. -EADDRINUSE: a live one; -EEXIST: something else; -ESRCH: no
 * such group. */
MUST_CHECK int listen_unix(const char *path, unsigned mode, const char *group);

/** Removes the path, unless it is by now another listener's. */
void unlisten_unix(const char *path, int fd);
