/* cmd: the subcommands of the program, one file each; main.c only dispatches.
 *
 * Owns the process: signals, limits, what is started and stopped in which order. */
#ifndef HOLDFAST_CMD_H
#define HOLDFAST_CMD_H

#include "config/config.h"
#include "metrics/metrics.h"
#include "registry/registry.h"

/* Exit statuses. */
enum {
    EXIT_DONE = 0,
    EXIT_FAILED = 1, /* it was tried, or found something wrong */
    EXIT_USAGE = 2,  /* the command line or the configuration is wrong */
};

/* `arguments` are those after the subcommand's name. Return the exit status. */
int cmd_serve(int n_arguments, char **arguments);
int cmd_check_config(int n_arguments, char **arguments);
int cmd_fsck(int n_arguments, char **arguments);
int cmd_import(int n_arguments, char **arguments);
int cmd_migrate(int n_arguments, char **arguments);
int cmd_backup(int n_arguments, char **arguments);
int cmd_restore(int n_arguments, char **arguments);
int cmd_upgrade(int n_arguments, char **arguments);

/* ---- What subcommands share ---- */

/* A flag of a subcommand that is no setting: "--name VALUE" or "--name=VALUE" where `value` is not
 * NULL, else "--name". */
struct cmd_flag {
    const char *name;
    const char **value;
    bool *is_set;
};
/* Takes them out of the arguments. Returns EXIT_USAGE, having said so, when one is used wrongly. */
int cmd_take_flags(const struct cmd_flag *flags, size_t n_flags, int *n_arguments,
                   char **arguments) MUST_CHECK;
/* A time: RFC 3339 in UTC, "2026-01-02T03:04:05Z" or "2026-01-02", or so long ago: "90m", "12h",
 * "30d". Errors: INVALID. */
int cmd_read_time(const char *text, struct wall_us *ret, struct err *err) MUST_CHECK;
/* Reads the configuration and sets the log up by it. When it is wrong, says so on standard error
 * and returns EXIT_USAGE; otherwise EXIT_DONE. ret: end with config_done. */
int cmd_load_config(int n_arguments, char **arguments, struct config *ret) MUST_CHECK;
/* Event threads: the setting, or four for each processor. */
unsigned cmd_event_threads(const struct config *config);
/* Opens the registry of this configuration, as registry_open does. `metrics` may be NULL.
 * ret: owned. */
int cmd_open_registry(const struct config *config, struct metrics *metrics, enum registry_use use,
                      struct registry **ret, struct err *err) MUST_CHECK;
/* The last line of a terminal, which shows how far a long command is; nothing where standard error
 * is none. */
struct cmd_bar {
    bool is_shown;
    struct mono_us drawn;
};
struct cmd_bar cmd_bar_new(void);
/* Draws it anew, unless that was done just now. True: more may be written behind it. `total` 0: how
 * much there is to do is not known, or nothing; above it `done` counts as all. */
bool cmd_bar_draw(struct cmd_bar *bar, const char *stage, uint64_t done, uint64_t total);
/* Before anything else is written. */
void cmd_bar_clear(const struct cmd_bar *bar);
/* Says on standard error, as the program's last words, why it ends. Returns EXIT_FAILED. */
int cmd_fail(const struct err *err);

#endif
