#include "cmd/copy.h"

struct backup_flags {
    const char *folder;
    const char *threads;
    const char *prune;
    bool metadata_only;
    bool list;
    bool verify;
};

static void print_snapshot(void *context, int64_t id, const struct transfer_snapshot *snapshot)
{
    size_t *n = context;
    (void)id;
    if ((*n)++ == 0)
        (void)printf("%-27s %12s %10s %10s %10s %16s\n", "TIME", "REPOSITORIES", "MANIFESTS",
                     "TAGS", "BLOBS", "BYTES");
    char time[CLOCK_TEXT_BYTES];
    clock_format(snapshot->time, time);
    (void)printf("%-27s %12llu %10llu %10llu %10llu %16llu%s\n", time,
                 (unsigned long long)snapshot->repositories,
                 (unsigned long long)snapshot->manifests, (unsigned long long)snapshot->tags,
                 (unsigned long long)snapshot->blob_count, (unsigned long long)snapshot->blob_bytes,
                 snapshot->blobs ? "" : " (not stored)");
}

static int list(struct cmd_copy *copy, const struct backup_flags *flags, struct call *call)
{
    size_t n = 0;
    if (transfer_list(call, flags->folder, print_snapshot, &n) < 0)
        return cmd_copy_fail(copy, &call->err);
    if (n == 0)
        (void)puts("there is no whole snapshot yet");
    return EXIT_DONE;
}

static int verify(struct cmd_copy *copy, const struct backup_flags *flags, struct call *call)
{
    uint64_t differences;
    if (transfer_verify(call, flags->folder, &copy->options, &differences) < 0)
        return cmd_copy_fail(copy, &call->err);
    return cmd_copy_differences(copy, differences);
}

static int prune(struct cmd_copy *copy, const struct backup_flags *flags, struct call *call)
{
    struct wall_us before;
    uint64_t snapshots;
    uint64_t bytes;
    if (cmd_copy_read_time(flags->prune, &before, &call->err) < 0) {
        (void)cmd_copy_fail(copy, &call->err);
        return EXIT_USAGE;
    }
    if (transfer_prune(call, flags->folder, before, &copy->options, &snapshots, &bytes) < 0)
        return cmd_copy_fail(copy, &call->err);
    (void)printf("%llu snapshots forgotten, %llu bytes freed\n", (unsigned long long)snapshots,
                 (unsigned long long)bytes);
    return EXIT_DONE;
}

static int take(struct cmd_copy *copy, const struct backup_flags *flags,
                const struct config *config, struct call *call)
{
    struct registry *registry;
    struct transfer_counts counts;
    struct wall_us time;
    if (cmd_copy_open(config, &registry, &call->err) < 0)
        return cmd_copy_fail(copy, &call->err);
    int done = transfer_backup(call, registry, flags->folder, !flags->metadata_only, &copy->options,
                               &time, &counts);
    registry_close(registry);
    if (done < 0)
        return cmd_copy_fail(copy, &call->err);
    char text[CLOCK_TEXT_BYTES];
    clock_format(time, text);
    int status = cmd_copy_end(copy, &counts);
    (void)printf("snapshot %s\n", text);
    return status;
}

static int load_and_take(struct cmd_copy *copy, const struct backup_flags *flags, int n_arguments,
                         char **arguments, struct call *call)
{
    struct config config;
    int status = cmd_load_config(n_arguments, arguments, &config);
    if (status != EXIT_DONE)
        return status;
    status = take(copy, flags, &config, call);
    config_done(&config);
    return status;
}

static int usage_error(const char *why)
{
    (void)fprintf(stderr, "holdfast: %s; see holdfast help\n", why);
    return EXIT_USAGE;
}

static int check_flags(const struct backup_flags *flags, int n_arguments)
{
    int others = flags->list + flags->verify + (flags->prune != NULL);
    if (flags->folder == NULL)
        return usage_error("--to FOLDER is missing, where the backup is");
    if (others > 1 || (others == 1 && flags->metadata_only))
        return usage_error("--metadata-only, --list, --verify and --prune exclude each other");
    if (others == 1 && n_arguments > 0)
        return usage_error("--list, --verify and --prune are about the backup alone, and take no "
                           "settings");
    return EXIT_DONE;
}

int cmd_backup(int n_arguments, char **arguments)
{
    struct backup_flags values = {0};
    const struct cmd_flag flags[] = {
        {"--to", &values.folder, NULL},   {"--threads", &values.threads, NULL},
        {"--prune", &values.prune, NULL}, {"--metadata-only", NULL, &values.metadata_only},
        {"--list", NULL, &values.list},   {"--verify", NULL, &values.verify},
    };
    struct cmd_copy copy;
    int status = cmd_take_flags(flags, ARRAY_SIZE(flags), &n_arguments, arguments);
    if (status == EXIT_DONE)
        status = check_flags(&values, n_arguments);
    if (status == EXIT_DONE)
        status = cmd_copy_begin(&copy, values.threads);
    if (status != EXIT_DONE)
        return status;
    auto_call call;
    call_init(&call);
    if (values.list)
        status = list(&copy, &values, &call);
    else if (values.verify)
        status = verify(&copy, &values, &call);
    else if (values.prune != NULL)
        status = prune(&copy, &values, &call);
    else
        status = load_and_take(&copy, &values, n_arguments, arguments, &call);
    cmd_copy_done(&copy);
    return status;
}
