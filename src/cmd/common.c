#include "cmd/cmd.h"

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

/* How long a request waits for a database connection before it is told to come back. */
#define DATABASE_PATIENCE_US (10 * CLOCK_SECOND_US)
#define READERS_MAX 256

unsigned cmd_event_threads(const struct config *config)
{
    if (config->http_threads > 0)
        return (unsigned)config->http_threads;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    return 4 * (unsigned)(processors > 0 ? processors : 1);
}

/* One for each thread that may read, so that none waits for another, and some for ourselves. */
static unsigned count_readers(const struct config *config)
{
    uint64_t wanted = cmd_event_threads(config) + config->http_workers + 4;
    return wanted < READERS_MAX ? (unsigned)wanted : READERS_MAX;
}

struct registry_options cmd_registry_options(const struct config *config)
{
    return (struct registry_options){
        .data = config->data.p,
        .readers = count_readers(config),
        .busy_us = DATABASE_PATIENCE_US,
        .expire_us = config->uploads_expire,
    };
}

int cmd_fail(const struct err *err)
{
    (void)fprintf(stderr, "holdfast: %s%s%s%s\n", err->say, err->why[0] != '\0' ? " (" : "",
                  err->why, err->why[0] != '\0' ? ")" : "");
    return EXIT_FAILED;
}
