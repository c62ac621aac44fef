#include "metrics/metrics.h"

static const int64_t bucket_us[METRICS_BUCKETS] = {
    250,   500,    1000,   2500,    5000,    10000,    25000,
    50000, 100000, 250000, 1000000, 5000000, 30000000, 120000000,
};

/* Statuses that the server gives; others are counted under the last entry. */
static const unsigned statuses[] = {
    200, 201, 202, 204, 206, 304, 307,
    400, 401, 403, 404, 405, 409, 411,
    412, 413, 414, 415, 416, 417, 429,
    431, 500, 501, 503, 505, 507, 0 /* broken off, or not above */,
};
#define N_STATUSES ARRAY_SIZE(statuses)

struct route_metrics {
    atomic_uint_fast64_t by_status[N_STATUSES];
    struct metrics_histogram latency;
};

/* Answers of the object store, by the first digit of their status; 0: none came. */
#define STORE_CLASSES 6

struct metrics {
    const char *const *routes;
    size_t n_routes;
    struct route_metrics *per_route;      /* owned, n_routes of them */
    struct metrics_histogram database[2]; /* reads, writes */
    struct metrics_histogram object_store;
    atomic_uint_fast64_t object_store_by_class[STORE_CLASSES];
    atomic_uint_fast64_t bytes_in;
    atomic_uint_fast64_t bytes_out;
    atomic_int_fast64_t connections;
    atomic_int_fast64_t uploads;
    struct wall_us started;
};

static void add(atomic_uint_fast64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static unsigned long long get(const atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void metrics_observe(struct metrics_histogram *histogram, int64_t us)
{
    size_t i = 0;
    while (i < METRICS_BUCKETS && us > bucket_us[i])
        i++;
    add(&histogram->bucket[i], 1);
    add(&histogram->sum_us, us > 0 ? (uint64_t)us : 0);
}

struct metrics *metrics_new(const char *const *routes, size_t n_routes)
{
    struct metrics *metrics = mem_zalloc(sizeof(*metrics));
    metrics->routes = routes;
    metrics->n_routes = n_routes;
    metrics->per_route = mem_zalloc(n_routes * sizeof(*metrics->per_route));
    metrics->started = clock_wall();
    return metrics;
}

void metrics_free(struct metrics *metrics)
{
    if (metrics == NULL)
        return;
    free(metrics->per_route);
    free(metrics);
}

static size_t status_index(unsigned status)
{
    size_t i = 0;
    while (i < N_STATUSES - 1 && statuses[i] != status)
        i++;
    return i;
}

void metrics_request(struct metrics *metrics, size_t route, unsigned status, int64_t us,
                     uint64_t bytes_in, uint64_t bytes_out)
{
    require(route < metrics->n_routes);
    add(&metrics->per_route[route].by_status[status_index(status)], 1);
    metrics_observe(&metrics->per_route[route].latency, us);
    if (bytes_in > 0)
        add(&metrics->bytes_in, bytes_in);
    if (bytes_out > 0)
        add(&metrics->bytes_out, bytes_out);
}

void metrics_database(void *context, bool write, int64_t us)
{
    struct metrics *metrics = context;
    metrics_observe(&metrics->database[write], us);
}

void metrics_object_store(void *context, const char *operation, unsigned status, int64_t us)
{
    struct metrics *metrics = context;
    (void)operation;
    unsigned class = status / 100;
    add(&metrics->object_store_by_class[class < STORE_CLASSES ? class : 0], 1);
    metrics_observe(&metrics->object_store, us);
}

void metrics_connections_add(struct metrics *metrics, int change)
{
    atomic_fetch_add_explicit(&metrics->connections, change, memory_order_relaxed);
}

int64_t metrics_uploads_add(struct metrics *metrics, int change)
{
    return atomic_fetch_add(&metrics->uploads, change) + change;
}

/* `labels`: those before `le`, with a comma at the end, or empty. */
static void format_histogram(struct buf *out, const char *name, const char *labels,
                             const struct metrics_histogram *histogram)
{
    unsigned long long total = 0;
    for (size_t i = 0; i < METRICS_BUCKETS; i++) {
        total += get(&histogram->bucket[i]);
        buf_printf(out, "%s_bucket{%sle=\"%g\"} %llu\n", name, labels, (double)bucket_us[i] / 1e6,
                   total);
    }
    total += get(&histogram->bucket[METRICS_BUCKETS]);
    size_t n = strlen(labels);
    int shown = (int)(n > 0 ? n - 1 : 0);
    buf_printf(out, "%s_bucket{%sle=\"+Inf\"} %llu\n", name, labels, total);
    buf_printf(out, "%s_sum{%.*s} %.6f\n", name, shown, labels,
               (double)get(&histogram->sum_us) / 1e6);
    buf_printf(out, "%s_count{%.*s} %llu\n", name, shown, labels, total);
}

static void head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void gauge(struct buf *out, const char *name, const char *help, double value)
{
    head(out, name, "gauge", help);
    buf_printf(out, "%s %.17g\n", name, value);
}

static void counter(struct buf *out, const char *name, const char *help, uint64_t value)
{
    head(out, name, "counter", help);
    buf_printf(out, "%s %llu\n", name, (unsigned long long)value);
}

static void format_requests(const struct metrics *metrics, struct buf *out)
{
    head(out, "holdfast_requests_total", "counter",
         "Requests by route and status; status 0: the client went away.");
    for (size_t r = 0; r < metrics->n_routes; r++)
        for (size_t s = 0; s < N_STATUSES; s++) {
            unsigned long long n = get(&metrics->per_route[r].by_status[s]);
            if (n > 0)
                buf_printf(out, "holdfast_requests_total{route=\"%s\",status=\"%u\"} %llu\n",
                           metrics->routes[r], statuses[s], n);
        }
    head(out, "holdfast_request_duration_seconds", "histogram",
         "From the request's head to the answer's last byte.");
    for (size_t r = 0; r < metrics->n_routes; r++) {
        auto_buf labels = BUF_INIT(256);
        buf_printf(&labels, "route=\"%s\",", metrics->routes[r]);
        format_histogram(out, "holdfast_request_duration_seconds", labels.p,
                         &metrics->per_route[r].latency);
    }
}

static void format_storage(const struct metrics_storage *storage, struct buf *out)
{
    gauge(out, "holdfast_storage_blobs", "Blobs stored.", (double)storage->blobs);
    gauge(out, "holdfast_storage_blob_bytes", "Bytes of the blobs stored, each counted once.",
          (double)storage->blob_bytes);
    gauge(out, "holdfast_storage_manifests", "Manifests stored.", (double)storage->manifests);
    gauge(out, "holdfast_storage_tags", "Tags.", (double)storage->tags);
    gauge(out, "holdfast_storage_repositories", "Repositories.", (double)storage->repositories);
    gauge(out, "holdfast_storage_uploads", "Upload sessions that are open.",
          (double)storage->uploads);
    if (storage->disk_total_bytes > 0) {
        gauge(out, "holdfast_storage_disk_free_bytes", "Bytes free where blobs are stored.",
              (double)storage->disk_free_bytes);
        gauge(out, "holdfast_storage_disk_total_bytes", "Size of the file system of the blobs.",
              (double)storage->disk_total_bytes);
    }
}

static void format_cache(const struct metrics_storage *storage, struct buf *out)
{
    counter(out, "holdfast_cache_hits_total", "Look-ups by digest answered from memory.",
            storage->cache_hits);
    counter(out, "holdfast_cache_misses_total", "Look-ups by digest that asked the database.",
            storage->cache_misses);
    gauge(out, "holdfast_cache_entries", "Look-ups that are kept in memory.",
          (double)storage->cache_entries);
    gauge(out, "holdfast_cache_bytes", "Memory that they take.", (double)storage->cache_bytes);
}

static void format_object_store(const struct metrics *metrics, struct buf *out)
{
    static const char *const classes[STORE_CLASSES] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
    head(out, "holdfast_object_store_requests_total", "counter",
         "Requests to the object store, each attempt, by the class of the answer's status.");
    for (size_t i = 0; i < STORE_CLASSES; i++) {
        unsigned long long n = get(&metrics->object_store_by_class[i]);
        if (n > 0)
            buf_printf(out, "holdfast_object_store_requests_total{status=\"%s\"} %llu\n",
                       classes[i], n);
    }
    head(out, "holdfast_object_store_duration_seconds", "histogram",
         "Requests to the object store, each attempt.");
    format_histogram(out, "holdfast_object_store_duration_seconds", "", &metrics->object_store);
}

void metrics_format(const struct metrics *metrics, const struct metrics_storage *storage,
                    struct buf *out)
{
    head(out, "holdfast_build_info", "gauge", "The running version.");
    buf_printf(out, "holdfast_build_info{version=\"%s\"} 1\n", HOLDFAST_VERSION);
    gauge(out, "holdfast_start_time_seconds", "When the server started, in seconds since 1970.",
          (double)metrics->started.us / 1e6);
    format_requests(metrics, out);
    counter(out, "holdfast_received_bytes_total", "Bytes of request bodies.",
            get(&metrics->bytes_in));
    counter(out, "holdfast_sent_bytes_total", "Bytes of answers' bodies.",
            get(&metrics->bytes_out));
    gauge(out, "holdfast_connections", "Connections that are open.",
          (double)atomic_load(&metrics->connections));
    gauge(out, "holdfast_uploads_in_flight", "Uploads whose body is being received.",
          (double)atomic_load(&metrics->uploads));
    head(out, "holdfast_database_duration_seconds", "histogram",
         "Database transactions, from check-out to end.");
    format_histogram(out, "holdfast_database_duration_seconds", "operation=\"read\",",
                     &metrics->database[0]);
    format_histogram(out, "holdfast_database_duration_seconds", "operation=\"write\",",
                     &metrics->database[1]);
    format_object_store(metrics, out);
    if (storage != NULL) {
        format_storage(storage, out);
        format_cache(storage, out);
    }
}
