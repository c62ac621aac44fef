#include "cmd/copy.h"

#include <signal.h>

#define LINE_INTERVAL_US (10 * CLOCK_SECOND_US) /* of progress where there is no terminal */
#define THREADS_DEFAULT 8
#define THREADS_MAX 256
#define MIB (1024.0 * 1024.0)

/* ---- Signals ---- */

static sigset_t signals_of(bool with_end)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGUSR1); /* from cmd_copy_done */
    if (with_end) {
        (void)sigaddset(&set, SIGINT);
        (void)sigaddset(&set, SIGTERM);
    }
    return set;
}

static void *listen_for_signals(void *context)
{
    struct cmd_copy *copy = context;
    sigset_t set = signals_of(/* with_end= */ true);
    int number = 0;
    while (!atomic_load(&copy->ended)) {
        require(sigwait(&set, &number) == 0);
        if (number == SIGUSR1)
            continue;
        atomic_store(&copy->stop, true);
        (void)fputs("holdfast: ending what is under way; once more ends at once\n", stderr);
        set = signals_of(/* with_end= */ false);
        sigset_t deadly = signals_of(/* with_end= */ true);
        (void)sigdelset(&deadly, SIGUSR1);
        require(pthread_sigmask(SIG_UNBLOCK, &deadly, NULL) == 0);
    }
    return NULL;
}

/* ---- What is shown ---- */

static void print_done(FILE *to, const struct cmd_copy *copy)
{
    if (strcmp(copy->stage, "bytes") == 0)
        (void)fprintf(to, "%.1f of %.1f MiB", (double)copy->done / MIB, (double)copy->total / MIB);
    else
        (void)fprintf(to, "%llu of %llu %s, %.1f MiB copied", (unsigned long long)copy->done,
                      (unsigned long long)copy->total, copy->stage, (double)copy->bytes / MIB);
}

static void draw(void *context, const char *stage, uint64_t done, uint64_t total)
{
    struct cmd_copy *copy = context;
    if (total > 0) {
        copy->stage = stage;
        copy->done = done;
        copy->total = total;
    } else {
        copy->bytes = done;
    }
    if (copy->stage == NULL)
        return;
    if (copy->bar.is_shown) {
        if (!cmd_bar_draw(&copy->bar, "", copy->done, copy->total))
            return;
        (void)fputc(' ', stderr);
        print_done(stderr, copy);
    } else if (clock_since_us(copy->told) >= LINE_INTERVAL_US) {
        copy->told = clock_mono();
        print_done(stdout, copy);
        (void)fputc('\n', stdout);
        (void)fflush(stdout);
    }
}

static void tell(void *context, const char *text)
{
    const struct cmd_copy *copy = context;
    cmd_bar_clear(&copy->bar);
    (void)fprintf(stderr, "trouble: %s\n", text);
}

int cmd_copy_end(const struct cmd_copy *copy, const struct transfer_counts *counts)
{
    cmd_bar_clear(&copy->bar);
    (void)printf("%llu blobs (%.1f MiB), %llu manifests and %llu tags copied, %llu blobs were "
                 "there, %llu entries removed; %llu repositories, %llu troubles\n",
                 (unsigned long long)counts->blobs, (double)counts->blob_bytes / MIB,
                 (unsigned long long)counts->manifests, (unsigned long long)counts->tags,
                 (unsigned long long)counts->present, (unsigned long long)counts->removed,
                 (unsigned long long)counts->repositories, (unsigned long long)counts->troubles);
    return counts->troubles > 0 ? EXIT_FAILED : EXIT_DONE;
}

int cmd_copy_differences(const struct cmd_copy *copy, uint64_t differences)
{
    cmd_bar_clear(&copy->bar);
    (void)printf("verified: %llu differences\n", (unsigned long long)differences);
    return differences > 0 ? EXIT_FAILED : EXIT_DONE;
}

int cmd_copy_fail(const struct cmd_copy *copy, const struct err *err)
{
    cmd_bar_clear(&copy->bar);
    (void)fflush(stdout);
    return cmd_fail(err);
}

/* ---- Beginning and end ---- */

int cmd_copy_begin(struct cmd_copy *copy, const char *threads)
{
    uint64_t n = THREADS_DEFAULT;
    struct err err;
    if (threads != NULL && (str_to_u64(str_from(threads), THREADS_MAX, &n, &err) < 0 || n == 0)) {
        (void)fprintf(stderr, "holdfast: --threads \"%s\" is not a number from 1 to %d\n", threads,
                      THREADS_MAX);
        return EXIT_USAGE;
    }
    *copy = (struct cmd_copy){.bar = cmd_bar_new(), .told = clock_mono()};
    copy->options = (struct transfer_options){
        .threads = (unsigned)n,
        .context = copy,
        .progress = draw,
        .trouble = tell,
        .stop = &copy->stop,
    };
    sigset_t set = signals_of(/* with_end= */ true);
    require(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    require(pthread_create(&copy->listener, NULL, listen_for_signals, copy) == 0);
    return EXIT_DONE;
}

void cmd_copy_done(struct cmd_copy *copy)
{
    atomic_store(&copy->ended, true);
    require(pthread_kill(copy->listener, SIGUSR1) == 0);
    require(pthread_join(copy->listener, NULL) == 0);
}

int cmd_copy_open(const struct config *config, struct registry **ret, struct err *err)
{
    auto_arena arena = {0};
    struct str database = str_printf(&arena, "%s/holdfast.db", config->data.p);
    if (config->metadata.n == 0 && access(database.p, F_OK) < 0)
        return err_set(err, ERR_NOT_FOUND, "there is no registry in the data folder \"%.200s\"",
                       config->data.p);
    return cmd_open_registry(config, NULL, REGISTRY_OBSERVE, ret, err);
}

/* "….25Z": without the fraction, which is *ret_us then. */
static struct str cut_fraction(struct arena *arena, struct str text, int64_t *ret_us)
{
    struct str digits = text;
    struct str whole = str_cut(&digits, '.');
    int64_t us = 0;
    int64_t unit = 100000; /* of the next digit */
    while (digits.n > 1 && digits.p[0] >= '0' && digits.p[0] <= '9' && unit > 0) {
        us += (digits.p[0] - '0') * unit;
        unit /= 10;
        digits = str_from_at(digits, 1);
    }
    if (unit == 100000 || !str_eq(digits, STR("Z")))
        return text;
    *ret_us = us;
    return str_printf(arena, STR_FMT "Z", STR_ARG(whole));
}

int cmd_copy_read_time(const char *text, struct wall_us *ret, struct err *err)
{
    auto_arena arena = {0};
    struct wall_us time;
    int64_t us = 0;
    struct str whole = cut_fraction(&arena, str_from(text), &us);
    if (cmd_read_time(whole.p, &time, err) < 0)
        return -1;
    *ret = (struct wall_us){time.us + us};
    return 0;
}
