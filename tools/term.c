#include "term.h"

#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/str.h"
#include "text.h"

static unsigned columns(void)
{
	const char *text = getenv("COLUMNS");
	struct winsize size;
	unsigned long n = 0;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
		n = size.ws_col;
	else if (text)
		n = strtoul(text, NULL, 10);
	if (n == 0)
		return TERM_WIDTH_UNKNOWN;
	if (n < TERM_WIDTH_MIN)
		return TERM_WIDTH_MIN;
	return n > TERM_WIDTH_MAX ? TERM_WIDTH_MAX : (unsigned)n;
}

static bool wants_colour(void)
{
	const char *no = getenv("NO_COLOR");
	const char *kind = getenv("TERM");

	return isatty(STDOUT_FILENO) && !(no && *no) && kind && *kind && strcmp(kind, "dumb") != 0;
}

void term_fill(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			// Takes the lowest that is free: this one. A command that we run has it
			// closed again.
			(void)open("/dev/null", O_RDWR | O_CLOEXEC);
}

void term_detect(struct term *t)
{
	setlocale(LC_CTYPE, "");
	*t = (struct term){
		.width = columns(),
		.colour = wants_colour(),
		.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0,
	};
}

static int write_all(int fd, const uint8_t *p, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int term_write(struct buf *out)
{
	int err = buf_error(out);

	if (!err)
		err = write_all(STDOUT_FILENO, out->data, out->len);
	buf_clear(out);
	return err;
}

void complain(const char *fmt, ...)
{
	const struct term plain = {.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0};
	char message[1024];
	struct buf line;
	va_list args;

	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	size_t len = strlen(message);
	len = utf8_cut(message, len, len);

	buf_init(&line, 4 * sizeof(message));
	buf_append_str(&line, "sidelight: ");
	text_put(&line, &plain, (struct str){message, len}, sizeof(message));
	buf_append_byte(&line, '\n');
	// There is nowhere left to report a failure to.
	(void)!write_all(STDERR_FILENO, line.data, line.len);
	buf_deinit(&line);
}
