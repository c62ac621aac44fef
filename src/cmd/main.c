#include "cmd/cmd.h"

static int cmd_version(int n_arguments, char **arguments)
{
    (void)n_arguments;
    (void)arguments;
    (void)puts("holdfast " HOLDFAST_VERSION);
    return EXIT_DONE;
}

static int cmd_help(int n_arguments, char **arguments);

static const struct {
    const char *name;
    int (*run)(int n_arguments, char **arguments);
    const char *usage;
    const char *what;
} commands[] = {
    {"serve", cmd_serve, "[--config FILE] [--listen ADDRESS:PORT]... [--data DIR] [SETTING]...",
     "serve the registry until SIGTERM; SIGHUP reads the certificate again"},
    {"check-config", cmd_check_config, "[--config FILE] [SETTING]...",
     "check the configuration and print the settings in force as YAML"},
    {"fsck", cmd_fsck, "[--repair] [--deep] [--config FILE] [--data DIR]",
     "compare database and blob store; --deep hashes every blob again, --repair mends"},
    {"import", cmd_import,
     "[--from] SOURCE [--repository GLOB]... [--prefix NAME] [--jobs N] [--dry-run] [SETTING]...",
     "bring in an existing registry; without a SOURCE, tells what it takes"},
    {"migrate", cmd_migrate, "--from FILE --to FILE [--threads N] [--verify]",
     "copy the registry of one configuration to that of another, which may be served meanwhile"},
    {"backup", cmd_backup,
     "--to FOLDER [--metadata-only] [--list | --verify | --prune TIME] [--threads N] [SETTING]...",
     "add a snapshot to a backup, list or verify its snapshots, or forget those before a time"},
    {"restore", cmd_restore, "--from FOLDER [--at TIME] [--overwrite] [--threads N] [SETTING]...",
     "make a registry what it was at the newest snapshot, or at the last one before a time"},
    {"upgrade", cmd_upgrade, "[--config FILE] [SETTING]...",
     "make the database's tables, or bring them up to date, as serve does when it may"},
    {"version", cmd_version, "", "print the version"},
    {"help", cmd_help, "", "print this, and every setting"},
};

static void print_usage(FILE *to)
{
    (void)fputs("usage: holdfast COMMAND [OPTION]...\n\n", to);
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        (void)fprintf(to, "  %s %s\n        %s\n", commands[i].name, commands[i].usage,
                      commands[i].what);
}

static int cmd_help(int n_arguments, char **arguments)
{
    (void)n_arguments;
    (void)arguments;
    auto_buf flags = BUF_INIT(65536);
    config_print_flags(&flags);
    print_usage(stdout);
    (void)printf("\nSettings, also as HOLDFAST_* variables and in the YAML file:\n\n%s", flags.p);
    return EXIT_DONE;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return EXIT_USAGE;
    }
    struct str name = str_from(argv[1]);
    if (str_eq(name, STR("--help")) || str_eq(name, STR("-h")))
        name = STR("help");
    if (str_eq(name, STR("--version")))
        name = STR("version");
    for (int i = 2; i < argc; i++)
        if (str_eq(str_from(argv[i]), STR("--help")))
            name = STR("help");
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (str_eq(name, str_from(commands[i].name)))
            return commands[i].run(argc - 2, argv + 2);
    (void)fprintf(stderr, "holdfast: there is no command \"%s\"; see holdfast help\n", argv[1]);
    return EXIT_USAGE;
}
