#include "cmd/cmd.h"

#include <time.h>

extern char **environ;

static enum log_format choose_format(enum config_log_format format)
{
    if (format == CONFIG_LOG_AUTO)
        return isatty(STDERR_FILENO) ? LOG_FORMAT_TEXT : LOG_FORMAT_JSON;
    return format == CONFIG_LOG_TEXT ? LOG_FORMAT_TEXT : LOG_FORMAT_JSON;
}

int cmd_load_config(int n_arguments, char **arguments, struct config *ret)
{
    const struct config_sources sources = {
        .arguments = arguments,
        .n_arguments = n_arguments,
        .environment = environ,
    };
    auto_buf complaints = BUF_INIT(CONFIG_COMPLAINTS_BYTES_MAX);
    if (config_load(&sources, ret, &complaints) < 0) {
        (void)fputs(complaints.p, stderr);
        return EXIT_USAGE;
    }
    log_setup(choose_format(ret->log_format), ret->log_level);
    return EXIT_DONE;
}

int cmd_fail(const struct err *err)
{
    (void)fprintf(stderr, "holdfast: %s%s%s%s\n", err->say, err->why[0] != '\0' ? " (" : "",
                  err->why, err->why[0] != '\0' ? ")" : "");
    return EXIT_FAILED;
}

static bool read_age(struct str text, struct wall_us *ret)
{
    static const struct {
        char unit;
        int64_t seconds;
    } units[] = {{'m', 60}, {'h', 3600}, {'d', 86400}};
    uint64_t n;
    if (!str_eat_u64(&text, 100000, &n) || text.n != 1)
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(units); i++)
        if (text.p[0] == units[i].unit) {
            ret->us = clock_wall().us - (int64_t)n * units[i].seconds * CLOCK_SECOND_US;
            return true;
        }
    return false;
}

int cmd_read_time(const char *text, struct wall_us *ret, struct err *err)
{
    static const char *const forms[] = {"%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ", "%Y-%m-%d"};
    if (read_age(str_from(text), ret))
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
        struct tm tm = {0};
        const char *end = strptime(text, forms[i], &tm);
        if (end != NULL && *end == '\0') {
            ret->us = (int64_t)timegm(&tm) * CLOCK_SECOND_US;
            return 0;
        }
    }
    return err_set(err, ERR_INVALID,
                   "\"%.64s\" is no time: write 2026-01-02T03:04:05Z, 2026-01-02, or so long ago: "
                   "90m, 12h, 30d",
                   text);
}
