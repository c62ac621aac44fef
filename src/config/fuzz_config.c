/* Any bytes as a configuration file: refused with a complaint, or understood, and then what
 * config_print writes of it is understood as the same. */
#include "config/config_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_read_back(struct str printed)
{
    auto_buf complaints = BUF_INIT(CONFIG_COMPLAINTS_BYTES_MAX);
    struct config again;
    require(config_load_yaml("printed.yaml", printed, &again, &complaints) == 0);
    auto_buf twice = BUF_INIT(CONFIG_FILE_BYTES_MAX);
    config_print(&again, &twice);
    require(str_eq(printed, buf_str(&twice)));
    config_done(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_buf complaints = BUF_INIT(CONFIG_COMPLAINTS_BYTES_MAX);
    struct config config;
    if (config_load_yaml("fuzz.yaml", (struct str){(const char *)data, size}, &config,
                         &complaints) != 0) {
        require(complaints.n > 0 && !complaints.overflow);
        require(complaints.p[complaints.n - 1] == '\n');
        return 0;
    }
    require(complaints.n == 0);
    auto_buf printed = BUF_INIT(CONFIG_FILE_BYTES_MAX);
    config_print(&config, &printed);
    require(!printed.overflow);
    must_read_back(buf_str(&printed));
    config_done(&config);
    return 0;
}
