/* Any bytes as a configuration file: refused with a complaint, or understood, and then what
 * config_print writes of it is understood as the same, or refused when a secret is left out. */
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

/* config_print left something out. */
static bool has_secret(const struct config *config)
{
    auto_buf masked = BUF_INIT(3 * TEXT_BYTES_MAX);
    config_add_masked(&masked, config->metadata);
    require(!masked.overflow);
    return config->s3_secret_key.n > 0 || !str_eq(buf_str(&masked), config->metadata);
}

static void must_be_refused(struct str printed)
{
    auto_buf complaints = BUF_INIT(CONFIG_COMPLAINTS_BYTES_MAX);
    struct config again;
    require(config_load_yaml("printed.yaml", printed, &again, &complaints) != 0);
    require(strstr(complaints.p, " has " CONFIG_MASK " where ") != NULL);
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
    if (has_secret(&config))
        must_be_refused(buf_str(&printed));
    else
        must_read_back(buf_str(&printed));
    config_done(&config);
    return 0;
}
