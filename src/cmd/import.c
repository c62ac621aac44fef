#include "cmd/cmd.h"
#include "importer/importer.h"

#include <signal.h>
#include <stdarg.h>

#define GLOBS_MAX 64
#define JOBS_DEFAULT 4
#define LINE_INTERVAL_US (10 * CLOCK_SECOND_US) /* of progress where there is no terminal */

static const char usage[] =
    "usage: holdfast import [--from] SOURCE [FLAG]... [SETTING]...\n"
    "\n"
    "SOURCE is one of\n"
    "  distribution:FOLDER          the storage folder of CNCF distribution (docker-registry)\n"
    "  oci:FOLDER                   an OCI image layout\n"
    "  https://HOST[:PORT]          all of a registry that shows its catalog\n"
    "  https://HOST[:PORT]/NAME     one repository of a registry\n"
    "\n"
    "  --repository GLOB       only repositories of this name; \"*\" matches \"/\", too; "
    "repeatable\n"
    "  --name NAME             the repository that an OCI image layout becomes\n"
    "  --prefix NAME           put NAME/ before the name of each repository\n"
    "  --jobs N                images that are copied at a time (default 4)\n"
    "  --overwrite             move tags that point elsewhere here; without it they are left\n"
    "  --dry-run               write nothing, and say what would be copied\n"
    "  --username NAME         who we are at the registry, with one of the two below it\n"
    "  --password-file FILE    file whose first line is the password\n"
    "  --password-env NAME     environment variable that holds the password\n"
    "  --docker-config FILE    a docker config.json that holds user name and password\n"
    "  --ca FILE               PEM file with the CA of the registry\n"
    "  --insecure-http         allow http:// to other machines\n"
    "\n"
    "The registry of the SETTINGs takes it in: a data folder that nobody serves meanwhile, or a\n"
    "database and an object store. What is there already is not copied again, so that an import\n"
    "that broke off is run again. The exit status is 1 when anything was skipped, or the source\n"
    "shows no repository.\n";

struct flags {
    const char *from;
    const char *name;
    const char *prefix;
    const char *jobs;
    const char *username;
    const char *password_file;
    const char *password_env;
    const char *docker_config;
    const char *ca;
    const char *globs[GLOBS_MAX];
    size_t n_globs;
    bool overwrite;
    bool dry_run;
    bool insecure_http;
};

/* ---- Arguments ---- */

PRINTF_LIKE(1, 2) static int usage_error(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)fputs("holdfast: ", stderr);
    (void)vfprintf(stderr, fmt, args);
    (void)fputs("; see holdfast import\n", stderr);
    va_end(args);
    return EXIT_USAGE;
}

/* Takes out the flag that may be repeated. */
static int take_globs(int *n_arguments, char **arguments, struct flags *flags)
{
    int kept = 0;
    for (int i = 0; i < *n_arguments; i++) {
        struct str value = str_from(arguments[i]);
        bool has_value = strchr(arguments[i], '=') != NULL;
        if (!str_eq(str_cut(&value, '='), STR("--repository"))) {
            arguments[kept++] = arguments[i];
            continue;
        }
        if (!has_value && i + 1 == *n_arguments)
            return usage_error("--repository needs a value");
        if (flags->n_globs == GLOBS_MAX)
            return usage_error("--repository can be given %d times", GLOBS_MAX);
        flags->globs[flags->n_globs++] = has_value ? value.p : arguments[++i];
    }
    *n_arguments = kept;
    return EXIT_DONE;
}

/* Takes this command's own flags out of the arguments, and the source, which may stand first. */
static int take_flags(int *n_arguments, char ***arguments, struct flags *flags)
{
    const struct cmd_flag table[] = {
        {"--from", .value = &flags->from},
        {"--name", .value = &flags->name},
        {"--prefix", .value = &flags->prefix},
        {"--jobs", .value = &flags->jobs},
        {"--username", .value = &flags->username},
        {"--password-file", .value = &flags->password_file},
        {"--password-env", .value = &flags->password_env},
        {"--docker-config", .value = &flags->docker_config},
        {"--ca", .value = &flags->ca},
        {"--overwrite", .is_set = &flags->overwrite},
        {"--dry-run", .is_set = &flags->dry_run},
        {"--insecure-http", .is_set = &flags->insecure_http},
    };
    if (*n_arguments > 0 && (*arguments)[0][0] != '-') {
        flags->from = (*arguments)[0];
        (*arguments)++;
        (*n_arguments)--;
    }
    int status = take_globs(n_arguments, *arguments, flags);
    if (status != EXIT_DONE)
        return status;
    return cmd_take_flags(table, ARRAY_SIZE(table), n_arguments, *arguments);
}

static int check_flags(const struct flags *flags, unsigned *ret_jobs)
{
    uint64_t jobs = JOBS_DEFAULT;
    struct err err;
    if (flags->jobs != NULL &&
        (str_to_u64(str_from(flags->jobs), IMPORTER_JOBS_MAX, &jobs, &err) < 0 || jobs == 0))
        return usage_error("--jobs: \"%s\" is not a number from 1 to %d", flags->jobs,
                           IMPORTER_JOBS_MAX);
    if (flags->password_file != NULL && flags->password_env != NULL)
        return usage_error("--password-file and --password-env exclude each other");
    bool has_password = flags->password_file != NULL || flags->password_env != NULL;
    if ((flags->username != NULL) != has_password)
        return usage_error("--username needs --password-file or --password-env, and these need it");
    if (flags->username != NULL && flags->docker_config != NULL)
        return usage_error("--username and --docker-config exclude each other");
    if (flags->password_env != NULL && getenv(flags->password_env) == NULL)
        return usage_error("--password-env: there is no environment variable \"%s\"",
                           flags->password_env);
    bool is_layout = strncmp(flags->from, "oci:", strlen("oci:")) == 0;
    if (is_layout && flags->name == NULL)
        return usage_error("oci:FOLDER needs --name NAME, the repository that it becomes");
    if (!is_layout && flags->name != NULL)
        return usage_error("--name is for oci:FOLDER; others have names of their own");
    *ret_jobs = (unsigned)jobs;
    return EXIT_DONE;
}

/* ---- What is shown ---- */

struct screen {
    struct cmd_bar bar;
    struct mono_us told;
    bool dry_run;
};

#define SIZE_TEXT_BYTES 32

static const char *size_text(uint64_t bytes, char text[SIZE_TEXT_BYTES])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double n = (double)bytes;
    size_t unit = 0;
    while (n >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
        n /= 1024;
        unit++;
    }
    (void)snprintf(text, SIZE_TEXT_BYTES, "%.*f %s", unit == 0 ? 0 : 1, n, units[unit]);
    return text;
}

static void print_finding(void *context, enum importer_finding finding, const char *text)
{
    static const char *const names[] = {
        [IMPORTER_SKIPPED] = "skipped",
        [IMPORTER_FOREIGN] = "foreign",
    };
    const struct screen *screen = context;
    cmd_bar_clear(&screen->bar);
    (void)printf("%s: %s\n", names[finding], text);
    (void)fflush(stdout);
}

static void show_progress(void *context, const struct importer_counts *counts)
{
    struct screen *screen = context;
    char size[SIZE_TEXT_BYTES];
    if (screen->bar.is_shown) {
        if (cmd_bar_draw(&screen->bar, "import", counts->done, counts->listed))
            (void)fprintf(stderr, " %llu of %llu images, %s", (unsigned long long)counts->done,
                          (unsigned long long)counts->listed, size_text(counts->bytes, size));
        return;
    }
    if (clock_since_us(screen->told) < LINE_INTERVAL_US)
        return;
    screen->told = clock_mono();
    (void)fprintf(stderr, "%llu of %llu images done, %s\n", (unsigned long long)counts->done,
                  (unsigned long long)counts->listed, size_text(counts->bytes, size));
}

static void print_summary(const struct screen *screen, const struct importer_counts *counts)
{
    char size[SIZE_TEXT_BYTES];
    (void)printf("%s %llu manifests, %llu tags, %llu blobs (%s) of %llu repositories\n",
                 screen->dry_run ? "would copy" : "copied", (unsigned long long)counts->manifests,
                 (unsigned long long)counts->tags, (unsigned long long)counts->blobs,
                 size_text(counts->bytes, size), (unsigned long long)counts->repositories);
    (void)printf("there already: %llu manifests, %llu tags, %llu blobs in other repositories; "
                 "%llu foreign layers left, %llu skipped\n",
                 (unsigned long long)counts->present, (unsigned long long)counts->present_tags,
                 (unsigned long long)counts->linked, (unsigned long long)counts->foreign,
                 (unsigned long long)counts->skipped);
}

/* ---- Running ---- */

/* Opening a data folder makes what is missing in it, which a dry run must not. */
static bool is_empty(const struct config *config)
{
    auto_arena arena = {0};
    bool has_folder = config->metadata.n == 0 || config->blobs.n == 0;
    if (has_folder && access(config->data.p, F_OK) < 0)
        return true;
    return config->metadata.n == 0 &&
           access(str_printf(&arena, "%s/holdfast.db", config->data.p).p, F_OK) < 0;
}

/* *ret NULL: a dry run into a registry in which there is nothing yet. */
static int open_target(const struct config *config, bool dry_run, struct registry **ret,
                       struct err *err)
{
    enum registry_use use = dry_run ? REGISTRY_OBSERVE : REGISTRY_SERVE;
    *ret = NULL;
    if (dry_run && is_empty(config))
        return 0;
    if (cmd_open_registry(config, NULL, use, ret, err) == 0)
        return 0;
    return dry_run && err->kind == ERR_NOT_FOUND ? 0 : -1;
}

static int run(struct call *call, const struct config *config, const struct flags *flags,
               const struct importer_options *options, struct importer_counts *ret_counts)
{
    const struct importer_origin origin = {
        .where = flags->from,
        .repository = flags->name,
        .manifest_bytes_max = (size_t)config->limits_manifest,
        .username = flags->username,
        .password_file = flags->password_file,
        .password = flags->password_env != NULL ? getenv(flags->password_env) : NULL,
        .docker_config = flags->docker_config,
        .ca_file = flags->ca,
        .insecure_http = flags->insecure_http,
    };
    struct registry *registry;
    struct importer_source *source;
    if (importer_source_open(call, &origin, &source) < 0)
        return -1;
    int done = open_target(config, flags->dry_run, &registry, &call->err);
    if (done == 0) {
        done = importer_run(call, source, registry, options, ret_counts);
        registry_close(registry);
    }
    importer_source_close(source);
    return done;
}

static int import(const struct config *config, const struct flags *flags, unsigned jobs)
{
    struct screen screen = {.bar = cmd_bar_new(), .told = clock_mono(), .dry_run = flags->dry_run};
    const struct importer_options options = {
        .jobs = jobs,
        .repositories = flags->globs,
        .n_repositories = flags->n_globs,
        .prefix = flags->prefix,
        .overwrite = flags->overwrite,
        .dry_run = flags->dry_run,
        .context = &screen,
        .found = print_finding,
        .progress = show_progress,
    };
    struct importer_counts counts = {0};
    auto_call call;
    call_init(&call);
    int done = run(&call, config, flags, &options, &counts);
    cmd_bar_clear(&screen.bar);
    if (done == 0 || counts.listed > 0)
        print_summary(&screen, &counts);
    if (done < 0) {
        (void)fflush(stdout);
        return cmd_fail(&call.err);
    }
    if (counts.repositories == 0)
        (void)fprintf(stderr, "holdfast: the source shows no repository%s\n",
                      flags->n_globs > 0 ? " that --repository chooses" : "");
    return counts.skipped > 0 || counts.repositories == 0 ? EXIT_FAILED : EXIT_DONE;
}

int cmd_import(int n_arguments, char **arguments)
{
    struct flags flags = {0};
    struct config config;
    unsigned jobs = JOBS_DEFAULT;
    int status = take_flags(&n_arguments, &arguments, &flags);
    if (status != EXIT_DONE)
        return status;
    if (flags.from == NULL) {
        (void)fputs(usage, stderr);
        return EXIT_USAGE;
    }
    status = check_flags(&flags, &jobs);
    if (status == EXIT_DONE)
        status = cmd_load_config(n_arguments, arguments, &config);
    if (status != EXIT_DONE)
        return status;
    (void)signal(SIGPIPE, SIG_IGN); /* a registry that hangs up is an error like others */
    status = import(&config, &flags, jobs);
    config_done(&config);
    return status;
}
