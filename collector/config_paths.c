#include "config_parts.h"

#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SYSTEM_SOCKET "/run/sidelight/sidelight.sock"
#define SYSTEM_DATA "/var/lib/sidelight"

static char *printed(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static char *printed(const char *fmt, ...)
{
	char *text;
	va_list args;

	va_start(args, fmt);
	int len = vasprintf(&text, fmt, args);
	va_end(args);
	return len < 0 ? NULL : text;
}

/* The directory that a variable names; the XDG specification has relative ones ignored. */
static const char *env_dir(const char *name)
{
	const char *value = getenv(name);
	return value && *value == '/' ? value : NULL;
}

static char *runtime_socket(void)
{
	const char *dir = env_dir("XDG_RUNTIME_DIR");
	return dir ? printed("%s/sidelight/sidelight.sock", dir) : NULL;
}

static char *tmp_dir(uid_t uid)
{
	return printed("/tmp/sidelight-%u", (unsigned)uid);
}

static char *tmp_socket(uid_t uid)
{
	return printed("/tmp/sidelight-%u/sidelight.sock", (unsigned)uid);
}

char *config_default_socket(uid_t uid)
{
	if (uid == 0)
		return strdup(SYSTEM_SOCKET);
	return env_dir("XDG_RUNTIME_DIR") ? runtime_socket() : tmp_socket(uid);
}

char *config_default_data_dir(uid_t uid)
{
	const char *state = env_dir("XDG_STATE_HOME"), *home = env_dir("HOME");

	if (uid == 0)
		return strdup(SYSTEM_DATA);
	if (state)
		return printed("%s/sidelight", state);
	return home ? printed("%s/.local/state/sidelight", home) : strdup(SYSTEM_DATA);
}

char *config_api_socket(const char *socket)
{
	size_t len = strlen(socket);

	if (len >= 5 && strcmp(socket + len - 5, ".sock") == 0)
		len -= 5;
	return printed("%.*s-api.sock", (int)len, socket);
}

static bool is_socket(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

/* /tmp is everybody's: whoever made this directory first would hear all prompts. */
static bool is_own_tmp(uid_t uid)
{
	struct stat st;
	char *dir = tmp_dir(uid);
	bool own = dir && lstat(dir, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == uid;

	free(dir);
	return own;
}

/* The path if there is a socket, else NULL, freed. */
static char *existing(char *path)
{
	if (path && is_socket(path))
		return path;
	free(path);
	return NULL;
}

static const char *given(const char *flag, const char *variable)
{
	const char *value = flag ? flag : getenv(variable);
	return value && *value ? value : NULL;
}

char *config_client_socket(const char *flag)
{
	const char *said = given(flag, "SIDELIGHT_SOCKET");
	uid_t uid = geteuid();
	char *path;

	if (said)
		return strdup(said);
	if (is_socket(SYSTEM_SOCKET))
		return strdup(SYSTEM_SOCKET);
	path = existing(runtime_socket());
	if (!path && is_own_tmp(uid))
		path = existing(tmp_socket(uid));
	return path ? path : strdup(SYSTEM_SOCKET);
}

char *config_client_data_dir(const char *flag)
{
	const char *said = given(flag, "SIDELIGHT_DATA");
	return said ? strdup(said) : config_default_data_dir(geteuid());
}
