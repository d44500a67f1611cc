#include "export/sink.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "export/console_text.h"

enum { TRY_BYTES = 32 * 1024 }; // text of one try: little is printed twice after an abort

struct console {
	struct sink sink;
	const struct sink_host *host;
	enum console_format format;
	bool content;
	int fd;
	struct buf text;
};

static void put_span(struct console *c, const struct span_record *span)
{
	if (c->format == CONSOLE_JSON)
		console_json(&c->text, span, c->content);
	else
		console_pretty(&c->text, span, c->content);
}

/* A text that is over its cap is left out: a span that large is no reading matter. */
static size_t format_spans(struct console *c, const struct span_record *spans, size_t count)
{
	size_t taken = 0;

	buf_clear(&c->text);
	while (taken < count && c->text.len < TRY_BYTES && buf_error(&c->text) == 0) {
		size_t len = c->text.len;
		put_span(c, &spans[taken]);
		if (buf_error(&c->text) && taken > 0) {
			c->text.len = len;
			c->text.error = 0;
			break;
		}
		taken++;
	}
	return taken;
}

/* Waits until the descriptor takes at least PIPE_BUF bytes. -ECANCELED: everything ends. */
static int wait_writable(struct console *c)
{
	struct pollfd p[2] = {
		{.fd = c->fd, .events = POLLOUT},
		{.fd = c->host->abort_fd, .events = POLLIN},
	};

	for (;;) {
		int n = poll(p, 2, SINK_TICK_MS);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0 && p[1].revents)
			return -ECANCELED;
		if (n > 0 && p[0].revents)
			return 0;
		c->host->tick(c->host->ctx);
	}
}

/* stdout is shared with other processes, so it is never made non-blocking. Instead no write is
 * larger than what a pipe that polls as writable takes without blocking. */
static int write_all(struct console *c)
{
	size_t done = 0;

	while (done < c->text.len) {
		int err = wait_writable(c);
		if (err)
			return err;
		size_t left = c->text.len - done;
		ssize_t n = write(c->fd, c->text.data + done, left < PIPE_BUF ? left : PIPE_BUF);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		if (n > 0)
			done += (size_t)n;
	}
	return 0;
}

static void refuse(struct outcome_report *ret, enum rejection reason, const char *message)
{
	ret->outcome = OUTCOME_REFUSED;
	ret->reason = reason;
	snprintf(ret->message, sizeof(ret->message), "%s", message);
}

static void console_send(struct sink *sink, const struct span_record *spans, size_t count,
                         struct outcome_report *ret)
{
	struct console *c = (struct console *)sink;

	ret->taken = format_spans(c, spans, count);
	int err = buf_error(&c->text);
	if (err == -ENOSPC) {
		refuse(ret, REJECTED_TOO_LONG, "a span is too long to print");
		return;
	}
	if (!err)
		err = write_all(c);
	if (err == -ECANCELED) {
		ret->outcome = OUTCOME_ABORTED;
	} else if (err == -EPIPE || err == -EBADF) {
		refuse(ret, REJECTED_CLOSED, "nobody reads stdout any more");
	} else if (err) {
		ret->outcome = OUTCOME_RETRY;
		snprintf(ret->message, sizeof(ret->message), "can't write to stdout: %s",
		         err_str(err));
	} else {
		ret->outcome = OUTCOME_DELIVERED;
	}
}

static void console_rest(struct sink *sink)
{
	struct console *c = (struct console *)sink;

	if (c->text.room > 2 * TRY_BYTES)
		buf_deinit(&c->text);
}

static void console_close(struct sink *sink)
{
	struct console *c = (struct console *)sink;

	if (!c)
		return;
	buf_deinit(&c->text);
	free(c);
}

static const struct sink_ops console_ops = {
	.send = console_send,
	.rest = console_rest,
	.close = console_close,
	.pace_ns = 100 * NS_PER_MS,
};

int console_open(struct sink **ret, const struct exporter_config *config,
                 const struct sink_host *host)
{
	struct console *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->sink.ops = &console_ops;
	c->host = host;
	c->format = config->format;
	c->content = config->content;
	c->fd = STDOUT_FILENO;
	buf_init(&c->text, CAP_EXPORT_BODY);
	*ret = &c->sink;
	return 0;
}
