/* owner.h - the script that a short-lived helper works for. */
#pragma once

#include <stddef.h>

/** The nearest process above us that is no mere copy of the one above it, as the shell of $(…) is.
 */
long owner_find(void);

/** What it is called: a script's name where its file was executed. "" where that can't be seen. */
void owner_name(long pid, char *ret, size_t size);
