/* auto.h - sidelight.install() in Python processes that don't call it. */
#pragma once

#include "base/err.h"

/** Writes a sitecustomize.py to dir/auto and puts that in front of $PYTHONPATH. A negative errno.
 */
MUST_CHECK int auto_set_up(const char *dir);
