/* err.h - the errors that errno has no word for.
 *
 * Functions return 0 or a negative code: -errno where errno has the word, else one of these.
 */
#pragma once

#define MUST_CHECK __attribute__((warn_unused_result))

enum err {
	ERR_FORMAT = -1000,     // not what the format says
	ERR_VERSION = -1001,    // written by a newer program
	ERR_CORRUPT = -1002,    // a checksum or an invariant does not hold
	ERR_FOREIGN = -1003,    // somebody else's file
	ERR_BUSY = -1004,       // another process has it
	ERR_NETWORK_FS = -1005, // a file system that can't be trusted with a memory map
	ERR_REMOVED = -1006,    // its file has been removed
};

/** Words for a code of either kind; never NULL. */
const char *err_str(int code);
