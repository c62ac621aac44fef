/* cmd, inside: what the commands that copy registries share: migrate, backup, restore. */
#ifndef HOLDFAST_CMD_COPY_H
#define HOLDFAST_CMD_COPY_H

#include "cmd/cmd.h"
#include "transfer/transfer.h"

#include <pthread.h>

struct cmd_copy {
    struct transfer_options options;
    struct cmd_bar bar;
    struct mono_us told;
    const char *stage; /* that has an end, and how much of it is done; NULL: none yet */
    uint64_t done;
    uint64_t total;
    uint64_t bytes; /* copied */
    pthread_t listener;
    atomic_bool stop;  /* a signal asked for it */
    atomic_bool ended; /* the listener is no longer needed */
};

/* `threads`: the flag's value, or NULL. From here to cmd_copy_done the first SIGINT or SIGTERM ends
 * the copy with what it has, and a second one ends the process; the copy stays where it is. Returns
 * EXIT_USAGE, having said so, when the value is wrong; then there is nothing to end. */
int cmd_copy_begin(struct cmd_copy *copy, const char *threads) MUST_CHECK;
void cmd_copy_done(struct cmd_copy *copy);
/* Print what was done. Return the exit status. */
int cmd_copy_end(const struct cmd_copy *copy, const struct transfer_counts *counts);
int cmd_copy_differences(const struct cmd_copy *copy, uint64_t differences);
int cmd_copy_fail(const struct cmd_copy *copy, const struct err *err);
/* Opens what is to be copied, beside who serves it. Errors: NOT_FOUND, where opening it would make
 * it; as registry_open. */
int cmd_copy_open(const struct config *config, struct registry **ret, struct err *err) MUST_CHECK;
/* As cmd_read_time, and with a fraction of a second, as times are listed. */
int cmd_copy_read_time(const char *text, struct wall_us *ret, struct err *err) MUST_CHECK;

#endif
