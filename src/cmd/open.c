/* From the configuration to an open registry. */
#include "blob/blob.h"
#include "cmd/cmd.h"
#include "s3/s3.h"

unsigned cmd_event_threads(const struct config *config)
{
    if (config->http_threads > 0)
        return (unsigned)config->http_threads;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    return 4 * (unsigned)(processors > 0 ? processors : 1);
}

#define READERS_MAX 256

/* SQLite: one for each thread that may read, so that none waits for another, and some for
 * ourselves. PostgreSQL's connections are dear: threads wait for them. */
static unsigned count_readers(const struct config *config)
{
    if (config->metadata.n > 0)
        return (unsigned)config->database_connections;
    uint64_t wanted = cmd_event_threads(config) + config->http_workers + 4;
    return wanted < READERS_MAX ? (unsigned)wanted : READERS_MAX;
}

static const enum s3_addressing addressing[] = {
    [CONFIG_ADDRESSING_AUTO] = S3_ADDRESSING_AUTO,
    [CONFIG_ADDRESSING_PATH] = S3_ADDRESSING_PATH,
    [CONFIG_ADDRESSING_HOST] = S3_ADDRESSING_HOST,
};

/* *ret NULL: blobs are files in the data folder. */
static int open_object_store(const struct config *config, struct metrics *metrics,
                             struct blob_store **ret, struct err *err)
{
    struct str bucket;
    struct str prefix;
    *ret = NULL;
    if (config_s3_location(config, &bucket, &prefix) < 0)
        return 0;
    const struct s3_options options = {
        .bucket = bucket.p,
        .prefix = prefix.p,
        .endpoint = config->s3_endpoint.p,
        .region = config->s3_region.p,
        .addressing = addressing[config->s3_addressing],
        .ca_file = config->s3_ca.p,
        .access_key = config->s3_access_key.p,
        .secret_key = config->s3_secret_key.p,
        .encryption = config_s3_encryption(config),
        .encryption_key = config->s3_encryption_key.p,
        .public_url = config->redirect_url.p,
        .patience_us = config->s3_patience,
        .connections = (unsigned)config->http_workers,
        .observe = metrics != NULL ? metrics_object_store : NULL,
        .observe_context = metrics,
    };
    const struct blob_s3_options store = {
        .part_bytes = config->s3_part_size,
        .redirect = config->redirect_enabled,
        .redirect_us = config->redirect_expire,
    };
    struct s3 *s3;
    if (s3_new(&options, &s3, err) < 0)
        return -1;
    *ret = blob_store_open_s3(s3, &store);
    return 0;
}

int cmd_open_registry(const struct config *config, struct metrics *metrics, enum registry_use use,
                      struct registry **ret, struct err *err)
{
    struct registry_options options = {
        .use = use,
        .data = config->data.p,
        .metadata = config->metadata.n > 0 ? config->metadata.p : NULL,
        .readers = count_readers(config),
        .busy_us = config->database_patience,
        .expire_us = config->uploads_expire,
        .lease_us = config->cluster_lease,
        .cache_bytes = config->cache_size,
        .observe = metrics != NULL ? metrics_database : NULL,
        .observe_context = metrics,
    };
    if (open_object_store(config, metrics, &options.blobs, err) < 0)
        return -1;
    return registry_open(&options, ret, err);
}
