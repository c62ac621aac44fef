#include "cmd/cmd.h"

#define BAR_WIDTH 30
#define BAR_INTERVAL_US (CLOCK_SECOND_US / 10)

struct screen {
    bool bar; /* standard error is a terminal */
    struct mono_us drawn;
    uint64_t found[REGISTRY_FREED + 1];
};

static void clear_bar(const struct screen *screen)
{
    if (screen->bar)
        (void)fputs("\r\x1b[K", stderr);
}

static void print_finding(void *context, enum registry_finding finding, const char *text)
{
    static const char *const names[] = {
        [REGISTRY_WRONG] = "wrong",
        [REGISTRY_REPAIRED] = "repaired",
        [REGISTRY_LEFTOVER] = "leftover",
        [REGISTRY_FREED] = "freed",
    };
    struct screen *screen = context;
    clear_bar(screen);
    screen->found[finding]++;
    (void)printf("%s: %s\n", names[finding], text);
}

static void draw_progress(void *context, const char *stage, uint64_t done, uint64_t total)
{
    struct screen *screen = context;
    if (!screen->bar || clock_since_us(screen->drawn) < BAR_INTERVAL_US)
        return;
    screen->drawn = clock_mono();
    double part = total > 0 && done < total ? (double)done / (double)total : 1;
    int filled = (int)(part * BAR_WIDTH);
    (void)fprintf(stderr, "\r\x1b[K%-10s [%.*s%*s] %3d%%", stage, filled,
                  "##############################", BAR_WIDTH - filled, "", (int)(part * 100));
}

/* Takes this command's own flags out of the arguments. */
static int take_flags(int n_arguments, char **arguments, struct registry_fsck *fsck)
{
    int kept = 0;
    for (int i = 0; i < n_arguments; i++) {
        struct str argument = str_from(arguments[i]);
        if (str_eq(argument, STR("--repair")))
            fsck->repair = true;
        else if (str_eq(argument, STR("--deep")))
            fsck->deep = true;
        else
            arguments[kept++] = arguments[i];
    }
    return kept;
}

static int check(const struct config *config, const struct registry_fsck *fsck,
                 const struct screen *screen)
{
    auto_call call;
    call_init(&call);
    struct registry_options options = cmd_registry_options(config);
    struct registry *registry;
    if (access(config->data.p, F_OK) < 0) { /* opening would make it */
        (void)err_set(&call.err, ERR_NOT_FOUND, "there is no data folder \"%s\"; see --data",
                      config->data.p);
        return cmd_fail(&call.err);
    }
    if (registry_open(&options, &registry, &call.err) < 0)
        return cmd_fail(&call.err);
    uint64_t wrong;
    int done = registry_fsck(&call, registry, fsck, &wrong);
    registry_close(registry);
    clear_bar(screen);
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
    struct screen screen = {.bar = isatty(STDERR_FILENO)};
    struct registry_fsck fsck = {
        .context = &screen, .found = print_finding, .progress = draw_progress};
    struct config config;
    n_arguments = take_flags(n_arguments, arguments, &fsck);
    int status = cmd_load_config(n_arguments, arguments, &config);
    if (status != EXIT_DONE)
        return status;
    status = check(&config, &fsck, &screen);
    config_done(&config);
    return status;
}
