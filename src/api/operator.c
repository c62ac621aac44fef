/* What the operator's tools ask: is it alive, is it ready, what does it do. */
#include "api/api_int.h"

#define METRICS_BYTES_MAX (1024u * 1024)

int api_healthz(struct request *request)
{
    http_respond_text(request->x, 200, "text/plain", STR("ok\n"));
    return 0;
}

int api_readyz(struct request *request)
{
    struct err *err = &request->call->err;
    if (registry_ready(request->call, request->api->registry) < 0) {
        log_err(LOG_LEVEL_ERROR, "not ready", err);
        return err_set(err, ERR_BUSY,
                       "not ready: the database or the blob store failed; see the "
                       "server's log");
    }
    http_respond_text(request->x, 200, "text/plain", STR("ready\n"));
    return 0;
}

int api_metrics(struct request *request)
{
    struct registry_totals totals;
    struct metrics_storage storage;
    bool known = registry_totals(request->call, request->api->registry, &totals) == 0;
    if (known)
        storage = (struct metrics_storage){
            .blobs = totals.blobs,
            .blob_bytes = totals.blob_bytes,
            .manifests = totals.manifests,
            .tags = totals.tags,
            .repositories = totals.repositories,
            .uploads = totals.uploads,
            .disk_free_bytes = totals.disk_free_bytes,
            .disk_total_bytes = totals.disk_total_bytes,
            .cache_hits = totals.cache.hits,
            .cache_misses = totals.cache.misses,
            .cache_entries = totals.cache.entries,
            .cache_bytes = totals.cache.bytes,
        };
    request->answer.max = METRICS_BYTES_MAX;
    metrics_format(request->api->metrics, known ? &storage : NULL, &request->answer);
    return answer_built(request, 200, "text/plain; version=0.0.4");
}
