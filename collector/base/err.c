#include "base/err.h"

#include <string.h>

const char *err_str(int code)
{
	switch (code) {
	case 0:
		return "no error";
	case ERR_FORMAT:
		return "malformed";
	case ERR_VERSION:
		return "written by a newer version";
	case ERR_CORRUPT:
		return "corrupt";
	case ERR_FOREIGN:
		return "not a Sidelight file";
	case ERR_BUSY:
		return "in use by another process";
	case ERR_NETWORK_FS:
		return "on a network file system";
	case ERR_REMOVED:
		return "its file has been removed: restart sidelightd";
	default:
		return strerror(code < 0 ? -code : code);
	}
}
