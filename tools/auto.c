#include "auto.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/caps.h"

/* Python runs it before the program. The environment's own one, which it stands in front of, runs
 * first and fails as it would without us. */
static const char sitecustomize[] =
	"\"\"\"Written by sidelight run --auto: tells Sidelight of this process, if it can.\"\"\"\n"
	"\n"
	"import os\n"
	"import sys\n"
	"\n"
	"\n"
	"def _run_hidden():\n"
	"    from importlib.machinery import PathFinder\n"
	"    from importlib.util import module_from_spec\n"
	"\n"
	"    here = os.path.dirname(os.path.abspath(__file__))\n"
	"    places = [os.path.abspath(p) for p in sys.path]\n"
	"    # Not what stands before: another one of these would look for us in turn.\n"
	"    behind = sys.path[places.index(here) + 1:] if here in places else sys.path\n"
	"    spec = PathFinder.find_spec('sitecustomize', behind)\n"
	"    if spec is not None and spec.loader is not None:\n"
	"        module = module_from_spec(spec)\n"
	"        sys.modules['sitecustomize'] = module\n"
	"        spec.loader.exec_module(module)\n"
	"\n"
	"\n"
	"def _install():\n"
	"    try:\n"
	"        import sidelight\n"
	"\n"
	"        sidelight.install()\n"
	"    except Exception:\n"
	"        pass\n"
	"\n"
	"\n"
	"try:\n"
	"    _run_hidden()\n"
	"finally:\n"
	"    _install()\n";

static int write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");

	if (!f)
		return -errno;
	bool ok = fputs(text, f) >= 0;
	return fclose(f) == 0 && ok ? 0 : -EIO;
}

int auto_set_up(const char *dir)
{
	const char *before = getenv("PYTHONPATH");
	char place[256], file[300];
	struct buf path;

	snprintf(place, sizeof(place), "%s/auto", dir);
	snprintf(file, sizeof(file), "%s/sitecustomize.py", place);
	if (mkdir(place, 0700) < 0)
		return -errno;
	int err = write_file(file, sitecustomize);
	if (err < 0)
		return err;
	buf_init(&path, MIB);
	buf_append_str(&path, place);
	if (before && *before) {
		buf_append_byte(&path, ':');
		buf_append_str(&path, before);
	}
	buf_append_byte(&path, '\0');
	err = buf_error(&path);
	if (err == 0 && setenv("PYTHONPATH", (const char *)path.data, 1) < 0)
		err = -ENOMEM;
	buf_deinit(&path);
	return err;
}
