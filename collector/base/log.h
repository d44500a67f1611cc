/* log.h - the daemon's own log, one line a message on stderr.
 *
 * stdout belongs to the console exporter. core/, store/ and base/ never log: they return.
 */
#pragma once

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/** Messages below this level are not printed; LOG_INFO at start. */
void log_set_level(enum log_level level);

/** Prints "LEVEL message", cut at 1 KiB; control characters are replaced. Thread-safe. */
void log_msg(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...) log_msg(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_msg(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_msg(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_msg(LOG_ERROR, __VA_ARGS__)
