#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static enum log_level min_level = LOG_INFO;

void log_set_level(enum log_level level)
{
	min_level = level;
}

void log_msg(enum log_level level, const char *fmt, ...)
{
	static const char *const words[] = {"debug: ", "", "warning: ", "error: "};
	char line[1024];

	if (level < min_level)
		return;
	int at = snprintf(line, sizeof(line), "sidelightd: %s", words[level]);
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(line + at, sizeof(line) - (size_t)at - 1, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	size_t len = strlen(line);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = ' ';
	line[len++] = '\n';
	// One write, so that lines of several threads never mix; nothing to do if it fails.
	ssize_t ignored = write(STDERR_FILENO, line, len);
	(void)ignored;
}
