#include "cmd/cmd.h"

struct screen {
    struct cmd_bar bar;
    uint64_t found[REGISTRY_FREED + 1];
};

static void print_finding(void *context, enum registry_finding finding, const char *text)
{
    static const char *const names[] = {
        [REGISTRY_WRONG] = "wrong",
        [REGISTRY_REPAIRED] = "repaired",
        [REGISTRY_LEFTOVER] = "leftover",
        [REGISTRY_FREED] = "freed",
    };
    struct screen *screen = context;
    cmd_bar_clear(&screen->bar);
    screen->found[finding]++;
    (void)printf("%s: %s\n", names[finding], text);
}

static void draw_progress(void *context, const char *stage, uint64_t done, uint64_t total)
{
    struct screen *screen = context;
    (void)cmd_bar_draw(&screen->bar, stage, done, total);
}

/* A local registry is checked while nobody serves it, one of many nodes while they serve: only
 * repairing needs it alone. */
static enum registry_use choose_use(const struct config *config, const struct registry_fsck *fsck)
{
    bool local = config->metadata.n == 0;
    return fsck->repair || local ? REGISTRY_ALONE : REGISTRY_OBSERVE;
}

static int check(const struct config *config, const struct registry_fsck *fsck,
                 const struct screen *screen)
{
    auto_call call;
    call_init(&call);
    struct registry *registry;
    bool uses_folder = config->metadata.n == 0 || config->blobs.n == 0;
    if (uses_folder && access(config->data.p, F_OK) < 0) { /* opening would make it */
        (void)err_set(&call.err, ERR_NOT_FOUND, "there is no data folder \"%s\"; see --data",
                      config->data.p);
        return cmd_fail(&call.err);
    }
    if (cmd_open_registry(config, NULL, choose_use(config, fsck), &registry, &call.err) < 0)
        return cmd_fail(&call.err);
    uint64_t wrong;
    int done = registry_fsck(&call, registry, fsck, &wrong);
    registry_close(registry);
    cmd_bar_clear(&screen->bar);
    if (done < 0)
        return cmd_fail(&call.err);
    (void)printf("%llu wrong, %llu repaired, %llu left over, %llu freed\n",
                 (unsigned long long)screen->found[REGISTRY_WRONG],
                 (unsigned long long)screen->found[REGISTRY_REPAIRED],
                 (unsigned long long)screen->found[REGISTRY_LEFTOVER],
                 (unsigned long long)screen->found[REGISTRY_FREED]);
    return wrong > 0 ? EXIT_FAILED : EXIT_DONE;
}

int cmd_fsck(int n_arguments, char **arguments)
{
    struct screen screen = {.bar = cmd_bar_new()};
    struct registry_fsck fsck = {
        .context = &screen, .found = print_finding, .progress = draw_progress};
    struct config config;
    const struct cmd_flag flags[] = {{"--repair", NULL, &fsck.repair},
                                     {"--deep", NULL, &fsck.deep}};
    int status = cmd_take_flags(flags, ARRAY_SIZE(flags), &n_arguments, arguments);
    if (status == EXIT_DONE)
        status = cmd_load_config(n_arguments, arguments, &config);
    if (status != EXIT_DONE)
        return status;
    status = check(&config, &fsck, &screen);
    config_done(&config);
    return status;
}
