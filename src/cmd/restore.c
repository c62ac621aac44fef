#include "cmd/copy.h"

struct restore_flags {
    const char *folder;
    const char *at;
    const char *threads;
    bool overwrite;
};

static void ignore(void *context, int64_t id, const struct transfer_snapshot *snapshot)
{
    (void)context;
    (void)id;
    (void)snapshot;
}

static int restore(struct cmd_copy *copy, const struct restore_flags *flags, struct wall_us when,
                   const struct config *config)
{
    auto_call call;
    call_init(&call);
    struct registry *registry;
    struct transfer_counts counts;
    struct wall_us time;
    /* First, because opening the registry makes it. */
    if (transfer_list(&call, flags->folder, ignore, NULL) < 0 ||
        cmd_open_registry(config, NULL, REGISTRY_ALONE, &registry, &call.err) < 0)
        return cmd_copy_fail(copy, &call.err);
    int done = transfer_restore(&call, flags->folder, when, registry, flags->overwrite,
                                &copy->options, &time, &counts);
    registry_close(registry);
    if (done < 0)
        return cmd_copy_fail(copy, &call.err);
    char text[CLOCK_TEXT_BYTES];
    clock_format(time, text);
    int status = cmd_copy_end(copy, &counts);
    (void)printf("restored the snapshot %s\n", text);
    return status;
}

static int run(const struct restore_flags *flags, struct wall_us when, int n_arguments,
               char **arguments)
{
    struct config config;
    struct cmd_copy copy;
    int status = cmd_load_config(n_arguments, arguments, &config);
    if (status != EXIT_DONE)
        return status;
    status = cmd_copy_begin(&copy, flags->threads);
    if (status == EXIT_DONE) {
        status = restore(&copy, flags, when, &config);
        cmd_copy_done(&copy);
    }
    config_done(&config);
    return status;
}

int cmd_restore(int n_arguments, char **arguments)
{
    struct restore_flags values = {0};
    const struct cmd_flag flags[] = {
        {"--from", &values.folder, NULL},
        {"--at", &values.at, NULL},
        {"--threads", &values.threads, NULL},
        {"--overwrite", NULL, &values.overwrite},
    };
    struct wall_us when = {INT64_MAX}; /* the newest */
    struct err err;
    int status = cmd_take_flags(flags, ARRAY_SIZE(flags), &n_arguments, arguments);
    if (status != EXIT_DONE)
        return status;
    if (values.folder == NULL) {
        (void)fputs("holdfast: --from FOLDER is missing, where the backup is; see holdfast help\n",
                    stderr);
        return EXIT_USAGE;
    }
    if (values.at != NULL && cmd_copy_read_time(values.at, &when, &err) < 0) {
        (void)cmd_fail(&err);
        return EXIT_USAGE;
    }
    return run(&values, when, n_arguments, arguments);
}
