/* Structured log lines on standard error: text for people, JSON for machines. A line is one
 * write(2), so that lines of several threads never mix. The log's format and level are the only
 * state of the process that is not passed down; they are set once, before threads start.
 * Secrets are never given to it. */
#ifndef HOLDFAST_BASE_LOG_H
#define HOLDFAST_BASE_LOG_H

#include "base/err.h"
#include "base/str.h"

#include <stdint.h>

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

struct log_field {
    const char *key; /* static */
    bool is_text;
    struct str text; /* borrowed for the call; left out when its p is NULL */
    int64_t number;
};

#define LOG_STR(k, s) ((struct log_field){.key = (k), .is_text = true, .text = (s)})
#define LOG_Z(k, z) LOG_STR(k, str_from(z))
#define LOG_INT(k, v) ((struct log_field){.key = (k), .number = (int64_t)(v)})

/* log_say(LOG_LEVEL_INFO, "listening", LOG_Z("address", text)); */
#define log_say(level, message, ...)                                         \
    do {                                                                     \
        const struct log_field fields_[] = {LOG_INT("", 0), ##__VA_ARGS__};  \
        log_write((level), (message), fields_ + 1, ARRAY_SIZE(fields_) - 1); \
    } while (0)

void log_setup(enum log_format format, enum log_level level);
bool log_wants(enum log_level level);
void log_write(enum log_level level, const char *message, const struct log_field *fields,
               size_t n_fields);
/* The operator's view of a failure: kind, say, why and place, after `message`. */
void log_err(enum log_level level, const char *message, const struct err *err);

#endif
