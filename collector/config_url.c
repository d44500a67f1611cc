#include "config_parts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>

/* "1.2.3.4" or "[::1]" in *ret_host without the brackets; the port's text, or NULL. */
static const char *split_host(const char *text, const char **ret_host, size_t *ret_len)
{
	const char *end;

	if (*text == '[') {
		end = strchr(text, ']');
		*ret_host = text + 1;
		*ret_len = end ? (size_t)(end - text) - 1 : 0;
		return end && end[1] == ':' ? end + 2 : NULL;
	}
	end = strchr(text, ':');
	*ret_host = text;
	*ret_len = end ? (size_t)(end - text) : 0;
	return end ? end + 1 : NULL;
}

static bool is_address(const char *host, bool v6)
{
	unsigned char bytes[sizeof(struct in6_addr)];
	return inet_pton(v6 ? AF_INET6 : AF_INET, host, bytes) == 1;
}

static bool read_port(const char *text, uint64_t *ret)
{
	const char *end;
	return read_digits(text, ret, &end) && *end == '\0' && *ret <= UINT16_MAX;
}

int parse_listen(const char *text, struct config *c)
{
	char host[INET6_ADDRSTRLEN];
	const char *start, *port_text;
	uint64_t port;
	size_t len;

	if (strcmp(text, "off") == 0) {
		free(c->http_host);
		c->http_host = NULL;
		c->http_enabled = false;
		c->http_port = 0;
		return 0;
	}
	port_text = split_host(text, &start, &len);
	if (!port_text || len >= sizeof(host) || !read_port(port_text, &port))
		return -EINVAL;
	memcpy(host, start, len);
	host[len] = '\0';
	// no resolver: the one name that is taken has one meaning
	if (*text != '[' && strcmp(host, "localhost") == 0)
		memcpy(host, "127.0.0.1", sizeof("127.0.0.1"));
	if (!is_address(host, *text == '['))
		return -EINVAL;
	int rc = put_text(&c->http_host, host, strlen(host));
	if (rc == 0) {
		c->http_enabled = true;
		c->http_port = (uint16_t)port;
	}
	return rc;
}

/* Whether "host", "host:port" or "[v6]:port", len bytes, could be connected to. */
static bool is_authority(const char *p, size_t len)
{
	char host[256];
	uint64_t port = 1;
	char *colon, *close;

	if (len == 0 || len >= sizeof(host))
		return false;
	memcpy(host, p, len);
	host[len] = '\0';
	close = host[0] == '[' ? strchr(host, ']') : NULL;
	if (host[0] == '[' && !close)
		return false;
	colon = strchr(close ? close : host, ':');
	if (colon && (!read_port(colon + 1, &port) || port == 0))
		return false;
	if (colon)
		*colon = '\0';
	if (!close)
		return host[0] && !host[strspn(host, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
		                                     "abcdefghijklmnopqrstuvwxyz0123456789.-_")];
	if (close[1] != '\0')
		return false;
	*close = '\0';
	return is_address(host + 1, true);
}

const char *url_authority(const char *url)
{
	if (strncmp(url, "http://", 7) == 0)
		return url + 7;
	return strncmp(url, "https://", 8) == 0 ? url + 8 : NULL;
}

const char *url_socket(const char *url)
{
	return strncmp(url, "unix:///", 8) == 0 ? url + 7 : NULL;
}

/* A path as it is: nothing is decoded in it. */
static int parse_unix(const struct key *k, const char *text, void *base, const char **ret_wrong)
{
	const char *path = url_socket(text);
	size_t len = strlen(path);

	if (path[len - 1] == '/')
		return -EINVAL;
	if (len > SOCKET_PATH_MAX) {
		*ret_wrong = "is too long a path for a socket";
		return -EINVAL;
	}
	return parse_text(k, text, base, ret_wrong);
}

bool url_is_https(const char *url)
{
	return strncmp(url, "https://", 8) == 0;
}

bool url_has_path(const char *url)
{
	const char *authority = url_authority(url);
	const char *path = authority ? authority + strcspn(authority, "/") : "";

	return path[0] != '\0' && path[1] != '\0';
}

int parse_url(const struct key *k, const char *text, void *base, const char **ret_wrong)
{
	const char *authority = url_authority(text), *at;

	if (url_socket(text))
		return parse_unix(k, text, base, ret_wrong);
	if (!authority || text_fault(text))
		return -EINVAL;
	for (const char *p = text; *p; p++) {
		if ((unsigned char)*p <= ' ' || *p == 0x7f || strchr("\\\"<>^`{|}", *p))
			return -EINVAL;
	}
	if (strpbrk(authority, "?#")) {
		*ret_wrong = "has a query or a fragment";
		return -EINVAL;
	}
	size_t len = strcspn(authority, "/");
	at = memrchr(authority, '@', len);
	if (at) {
		len -= (size_t)(at + 1 - authority);
		authority = at + 1;
	}
	if (!is_authority(authority, len))
		return -EINVAL;
	return parse_text(k, text, base, ret_wrong);
}
