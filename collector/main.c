#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "config.h"
#include "daemon.h"

enum { EXIT_USAGE = 2 };
enum { OPT_SOCKET = 256, OPT_DATA, OPT_HTTP, OPT_CHECK, OPT_VERSION };

static const char usage[] =
	"usage: sidelightd [options]\n"
	"\n"
	"Collects what AI agents do: spans, metrics, and a log of it that survives them.\n"
	"It needs no configuration.\n"
	"\n"
	"  -c, --config FILE     read FILE (default: $SIDELIGHT_CONFIG, "
	"/etc/sidelight/sidelight.yaml)\n"
	"      --socket PATH     where agents connect\n"
	"      --data DIR        where the log is kept\n"
	"      --http ADDR:PORT  metrics and API over TCP (default 127.0.0.1:4320), or off\n"
	"      --check-config    print the effective configuration and exit\n"
	"      --version         print the version and exit\n"
	"  -h, --help            print this and exit\n"
	"\n"
	"Exit status: 0, 1 failed, 2 usage or configuration error.\n";

static const struct option options[] = {
	{"config", required_argument, NULL, 'c'},
	{"socket", required_argument, NULL, OPT_SOCKET},
	{"data", required_argument, NULL, OPT_DATA},
	{"http", required_argument, NULL, OPT_HTTP},
	{"check-config", no_argument, NULL, OPT_CHECK},
	{"version", no_argument, NULL, OPT_VERSION},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

struct command {
	struct config_flags flags;
	bool check;
};

/* Returns an exit code, or -1 to go on. */
static int parse(int argc, char **argv, struct command *ret)
{
	int c;

	while ((c = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			ret->flags.config = optarg;
			break;
		case OPT_SOCKET:
			ret->flags.socket = optarg;
			break;
		case OPT_DATA:
			ret->flags.data = optarg;
			break;
		case OPT_HTTP:
			ret->flags.http = optarg;
			break;
		case OPT_CHECK:
			ret->check = true;
			break;
		case OPT_VERSION:
			puts("sidelightd " SIDELIGHT_VERSION);
			return EXIT_SUCCESS;
		case 'h':
			fputs(usage, stdout);
			return EXIT_SUCCESS;
		default:
			fputs("try 'sidelightd --help'\n", stderr);
			return EXIT_USAGE;
		}
	}
	if (optind == argc)
		return -1;
	fprintf(stderr, "sidelightd: unexpected argument '%s'\ntry 'sidelightd --help'\n",
	        argv[optind]);
	return EXIT_USAGE;
}

/* Else the next file to be opened, the store perhaps, would get what is printed. */
static bool open_standard_files(void)
{
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			return false;
	return true;
}

int main(int argc, char **argv)
{
	struct command command = {0};
	struct config config;

	if (!open_standard_files())
		return EXIT_FAILURE;
	int rc = parse(argc, argv, &command);
	if (rc >= 0)
		return rc;
	rc = config_load(&config, &command.flags, stderr);
	if (rc == -ENOMEM)
		log_error("out of memory");
	if (rc < 0)
		return rc == -ENOMEM ? EXIT_FAILURE : EXIT_USAGE;
	if (command.check) {
		config_print(&config, stdout);
		rc = fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
	} else {
		rc = daemon_run(&config, &command.flags);
	}
	config_free(&config);
	return rc;
}
