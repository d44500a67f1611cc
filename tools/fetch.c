#include "fetch.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"

enum {
	CONNECT_MS = 5000,
	SILENT_S = 5, // without a byte
	WHOLE_MS = 60000,
};

struct fetch {
	CURL *easy;
	char *base;
	struct buf url;
	struct buf *out; // of the request under way
	char error[CURL_ERROR_SIZE];
};

static size_t receive(char *data, size_t size, size_t count, void *ctx)
{
	struct fetch *f = ctx;

	buf_append(f->out, data, size * count);
	return buf_error(f->out) ? 0 : size * count;
}

static bool set_options(struct fetch *f, const char *socket)
{
	CURL *e = f->easy;
	CURLcode err = 0;

	err |= curl_easy_setopt(e, CURLOPT_ERRORBUFFER, f->error);
	err |= curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, receive);
	err |= curl_easy_setopt(e, CURLOPT_WRITEDATA, f);
	err |= curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	err |= curl_easy_setopt(e, CURLOPT_PROXY, "");
	err |= curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	err |= curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	err |= curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
	err |= curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1L);
	err |= curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, (long)SILENT_S);
	err |= curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)WHOLE_MS);
	err |= curl_easy_setopt(e, CURLOPT_USERAGENT, "sidelight/" SIDELIGHT_VERSION);
	if (socket)
		err |= curl_easy_setopt(e, CURLOPT_UNIX_SOCKET_PATH, socket);
	return err == CURLE_OK;
}

int fetch_open(struct fetch **ret, const char *base, const char *socket)
{
	struct fetch *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	buf_init(&f->url, 8 * KIB);
	f->base = strdup(base);
	if (curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK)
		f->easy = curl_easy_init();
	if (!f->base || !f->easy || !set_options(f, socket)) {
		fetch_close(f);
		return -ENOMEM;
	}
	for (size_t n = strlen(f->base); n > 0 && f->base[n - 1] == '/'; n--)
		f->base[n - 1] = '\0';
	*ret = f;
	return 0;
}

void fetch_close(struct fetch *f)
{
	if (!f)
		return;
	if (f->easy)
		curl_easy_cleanup(f->easy);
	curl_global_cleanup();
	buf_deinit(&f->url);
	free(f->base);
	free(f);
}

/* curl's codes in our words; the one place that knows them. */
static int from_curl(struct fetch *f, CURLcode code)
{
	long os_error = 0;

	switch (code) {
	case CURLE_OK:
		return 0;
	case CURLE_COULDNT_CONNECT:
		curl_easy_getinfo(f->easy, CURLINFO_OS_ERRNO, &os_error);
		return os_error > 0 ? -(int)os_error : -ECONNREFUSED;
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_WRITE_ERROR:
		snprintf(f->error, sizeof(f->error), "%s", "the answer is too long");
		return -EMSGSIZE;
	case CURLE_OUT_OF_MEMORY:
		return -ENOMEM;
	default:
		return -EIO;
	}
}

int fetch_get(struct fetch *f, const char *path, struct buf *out, long *ret_status)
{
	buf_clear(&f->url);
	buf_append_str(&f->url, f->base);
	buf_append_str(&f->url, path);
	buf_append_byte(&f->url, '\0');
	if (buf_error(&f->url))
		return buf_error(&f->url);
	if (curl_easy_setopt(f->easy, CURLOPT_URL, (const char *)f->url.data) != CURLE_OK)
		return -ENOMEM;
	buf_clear(out);
	f->out = out;
	f->error[0] = '\0';
	CURLcode code = curl_easy_perform(f->easy);
	if (code != CURLE_OK && !f->error[0])
		snprintf(f->error, sizeof(f->error), "%s", curl_easy_strerror(code));
	if (code == CURLE_OK)
		curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, ret_status);
	return from_curl(f, code);
}

const char *fetch_error(const struct fetch *f)
{
	return f->error;
}
