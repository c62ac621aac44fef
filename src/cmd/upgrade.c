/* What serving does first, by itself: for a user who may change tables, where the one who serves
 * may not. */
#include "cmd/cmd.h"

static int upgrade(const struct config *config)
{
    struct registry *registry;
    struct err err;
    /* To serve would make a copy a registry of its own. */
    if (cmd_open_registry(config, NULL, REGISTRY_SERVE_READ_ONLY, &registry, &err) < 0)
        return cmd_fail(&err);
    registry_close(registry);
    (void)puts("the database is up to date");
    return EXIT_DONE;
}

int cmd_upgrade(int n_arguments, char **arguments)
{
    struct config config;
    int status = cmd_load_config(n_arguments, arguments, &config);
    if (status != EXIT_DONE)
        return status;
    status = upgrade(&config);
    config_done(&config);
    return status;
}
