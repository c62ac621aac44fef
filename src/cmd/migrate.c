#include "cmd/copy.h"

/* Reads one of the two files. The environment belongs to neither. */
static int load(const char *flag, const char *file, struct config *ret)
{
    if (file == NULL) {
        (void)fprintf(stderr, "holdfast: %s FILE is missing, the configuration of that registry\n",
                      flag);
        return EXIT_USAGE;
    }
    const struct config_sources sources = {.file = file};
    auto_buf complaints = BUF_INIT(CONFIG_COMPLAINTS_BYTES_MAX);
    if (config_load(&sources, ret, &complaints) == 0)
        return EXIT_DONE;
    (void)fputs(complaints.p, stderr);
    return EXIT_USAGE;
}

struct migration {
    const char *from_file;
    const char *to_file;
    const char *threads;
    bool verify;
    struct config from_config;
    struct config to_config;
    struct registry *from;
    struct registry *to;
    struct cmd_copy copy;
};

/* Of two registries it matters which one could not be opened. */
static int open_failed(const struct migration *migration, const char *file, const struct err *err)
{
    struct err named = *err;
    (void)snprintf(named.say, sizeof(named.say), "%.100s: %.200s", file, err->say);
    return cmd_copy_fail(&migration->copy, &named);
}

static int verify(const struct migration *migration, struct call *call)
{
    uint64_t differences;
    if (transfer_compare(call, migration->from, migration->to, /* deep= */ true,
                         &migration->copy.options, &differences) < 0)
        return cmd_copy_fail(&migration->copy, &call->err);
    return cmd_copy_differences(&migration->copy, differences);
}

static int migrate(struct migration *migration, struct call *call)
{
    struct transfer_counts counts;
    if (cmd_copy_open(&migration->from_config, &migration->from, &call->err) < 0)
        return open_failed(migration, migration->from_file, &call->err);
    if (cmd_open_registry(&migration->to_config, NULL, REGISTRY_ALONE, &migration->to, &call->err) <
        0)
        return open_failed(migration, migration->to_file, &call->err);
    if (transfer_migrate(call, migration->from, migration->to, &migration->copy.options, &counts) <
        0)
        return cmd_copy_fail(&migration->copy, &call->err);
    int status = cmd_copy_end(&migration->copy, &counts);
    return status == EXIT_DONE && migration->verify ? verify(migration, call) : status;
}

static int run(struct migration *migration)
{
    int status = load("--from", migration->from_file, &migration->from_config);
    if (status == EXIT_DONE)
        status = load("--to", migration->to_file, &migration->to_config);
    if (status == EXIT_DONE)
        status = cmd_copy_begin(&migration->copy, migration->threads);
    if (status != EXIT_DONE)
        return status;
    auto_call call;
    call_init(&call);
    status = migrate(migration, &call);
    registry_close(migration->from);
    registry_close(migration->to);
    cmd_copy_done(&migration->copy);
    return status;
}

int cmd_migrate(int n_arguments, char **arguments)
{
    struct migration migration = {0};
    const struct cmd_flag flags[] = {
        {"--from", &migration.from_file, NULL},
        {"--to", &migration.to_file, NULL},
        {"--threads", &migration.threads, NULL},
        {"--verify", NULL, &migration.verify},
    };
    int status = cmd_take_flags(flags, ARRAY_SIZE(flags), &n_arguments, arguments);
    if (status == EXIT_DONE && n_arguments > 0) {
        (void)fprintf(stderr,
                      "holdfast: migrate does not know \"%s\": settings are in the two files; see "
                      "holdfast help\n",
                      arguments[0]);
        status = EXIT_USAGE;
    }
    if (status == EXIT_DONE)
        status = run(&migration);
    config_done(&migration.from_config);
    config_done(&migration.to_config);
    return status;
}
