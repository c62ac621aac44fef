#include "cmd/cmd.h"

int cmd_check_config(int n_arguments, char **arguments)
{
    struct config config;
    int status = cmd_load_config(n_arguments, arguments, &config);
    if (status != EXIT_DONE)
        return status;
    auto_buf yaml = BUF_INIT(1024 * 1024);
    config_print(&config, &yaml);
    (void)fputs(yaml.p, stdout);
    config_done(&config);
    return EXIT_DONE;
}
