/* cmd: the subcommands of the program, one file each; main.c only dispatches.
 *
 * Owns the process: signals, limits, what is started and stopped in which order. */
#ifndef HOLDFAST_CMD_H
#define HOLDFAST_CMD_H

#include "config/config.h"
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

/* ---- What subcommands share ---- */

/* Reads the configuration and sets the log up by it. When it is wrong, says so on standard error
 * and returns EXIT_USAGE; otherwise EXIT_DONE. ret: end with config_done. */
int cmd_load_config(int n_arguments, char **arguments, struct config *ret) MUST_CHECK;
/* Event threads: the setting, or four for each processor. */
unsigned cmd_event_threads(const struct config *config);
/* The options with which this configuration opens its registry. */
struct registry_options cmd_registry_options(const struct config *config);
/* Says on standard error, as the program's last words, why it ends. Returns EXIT_FAILED. */
int cmd_fail(const struct err *err);

#endif
