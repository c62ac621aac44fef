/* metrics: counters of the running server, and their text for Prometheus.
 *
 * Owns the numbers and their format; never decides what is counted. Recording is a few relaxed
 * atomic additions, so that it may stand on every path. Threads: any. */
#ifndef HOLDFAST_METRICS_H
#define HOLDFAST_METRICS_H

#include "base/base.h"

#include <stdatomic.h>

/* Upper bounds in microseconds; the last bucket, +Inf, is implied. */
#define METRICS_BUCKETS 14
struct metrics_histogram {
    atomic_uint_fast64_t bucket[METRICS_BUCKETS + 1];
    atomic_uint_fast64_t sum_us;
};
void metrics_observe(struct metrics_histogram *histogram, int64_t us);

struct metrics;

/* `routes`: static names, the index is what metrics_request takes. ret: owned. */
struct metrics *metrics_new(const char *const *routes, size_t n_routes);
/* Takes NULL. */
void metrics_free(struct metrics *metrics);

/* One request that was answered, or broken off (`status` 0). */
void metrics_request(struct metrics *metrics, size_t route, unsigned status, int64_t us,
                     uint64_t bytes_in, uint64_t bytes_out);
/* Fits db_options.observe; `context` is the struct metrics. */
void metrics_database(void *context, bool write, int64_t us);
/* Fits s3_options.observe: one attempt at the object store; `status` 0: no answer came. */
void metrics_object_store(void *context, const char *operation, unsigned status, int64_t us);
void metrics_connections_add(struct metrics *metrics, int change);
/* Uploads whose body is being received. Returns their number after the change. */
int64_t metrics_uploads_add(struct metrics *metrics, int change);

/* What only the moment of asking knows. */
struct metrics_storage {
    uint64_t blobs;
    uint64_t blob_bytes;
    uint64_t manifests;
    uint64_t tags;
    uint64_t repositories;
    uint64_t uploads;
    uint64_t disk_free_bytes;
    uint64_t disk_total_bytes; /* 0: there is no such bound; both are left out */
    uint64_t cache_hits;
    uint64_t cache_misses;
    uint64_t cache_entries;
    uint64_t cache_bytes;
};
/* Appends everything in the text format 0.0.4. `storage` may be NULL: left out. */
void metrics_format(const struct metrics *metrics, const struct metrics_storage *storage,
                    struct buf *out);

#endif
