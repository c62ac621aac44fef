#include "base/log.h"

#include "base/buf.h"
#include "base/clock.h"

#include <unistd.h>

#define LOG_LINE_BYTES_MAX 16384

static enum log_format the_format = LOG_FORMAT_TEXT;
static enum log_level the_level = LOG_LEVEL_INFO;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_setup(enum log_format format, enum log_level level)
{
    the_format = format;
    the_level = level;
}

bool log_wants(enum log_level level)
{
    return level >= the_level;
}

static bool is_plain(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= ' ' || s.p[i] == '"' || s.p[i] == '\\' || s.p[i] == '=' || s.p[i] == 0x7f)
            return false;
    return s.n > 0;
}

static void add_text_line(struct buf *line, const char *time, enum log_level level,
                          const char *message, const struct log_field *fields, size_t n_fields)
{
    buf_printf(line, "%s %-5s %s", time, level_names[level], message);
    for (size_t i = 0; i < n_fields; i++) {
        if (!fields[i].is_text)
            buf_printf(line, " %s=%lld", fields[i].key, (long long)fields[i].number);
        else if (fields[i].text.p != NULL) {
            buf_printf(line, " %s=", fields[i].key);
            if (is_plain(fields[i].text))
                buf_add_str(line, fields[i].text);
            else
                buf_add_json(line, fields[i].text);
        }
    }
}

static void add_json_line(struct buf *line, const char *time, enum log_level level,
                          const char *message, const struct log_field *fields, size_t n_fields)
{
    buf_printf(line, "{\"time\":\"%s\",\"level\":\"%s\",\"message\":", time, level_names[level]);
    buf_add_json(line, str_from(message));
    for (size_t i = 0; i < n_fields; i++) {
        if (!fields[i].is_text)
            buf_printf(line, ",\"%s\":%lld", fields[i].key, (long long)fields[i].number);
        else if (fields[i].text.p != NULL) {
            buf_printf(line, ",\"%s\":", fields[i].key);
            buf_add_json(line, fields[i].text);
        }
    }
    buf_add_char(line, '}');
}

void log_write(enum log_level level, const char *message, const struct log_field *fields,
               size_t n_fields)
{
    if (!log_wants(level))
        return;
    char time[CLOCK_TEXT_BYTES];
    clock_format(clock_wall(), time);

    auto_buf line = BUF_INIT(LOG_LINE_BYTES_MAX);
    if (the_format == LOG_FORMAT_JSON)
        add_json_line(&line, time, level, message, fields, n_fields);
    else
        add_text_line(&line, time, level, message, fields, n_fields);
    if (line.overflow) /* leave the fields out rather than cut a line in two */
        line.n = 0, line.overflow = false,
        buf_printf(&line, "{\"time\":\"%s\",\"level\":\"error\",\"message\":\"log line too long\"}",
                   time);
    buf_add_char(&line, '\n');
    ssize_t written = write(STDERR_FILENO, line.p, line.n);
    (void)written; /* there is nowhere left to complain to */
}

void log_err(enum log_level level, const char *message, const struct err *err)
{
    log_say(level, message, LOG_Z("error", err->say), LOG_Z("kind", err_kind_name(err->kind)),
            LOG_Z("why", err->why[0] != '\0' ? err->why : NULL), LOG_Z("file", err->file),
            LOG_INT("line", err->line));
}
