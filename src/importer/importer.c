#include "importer/importer_int.h"

#include <fnmatch.h>
#include <pthread.h>

#define QUEUE_ITEMS 256
#define SILENT_MAX 10
#define REFERENCE_BYTES_MAX (OCI_DIGEST_TEXT_MAX + OCI_TAG_BYTES_MAX)
#define REPORT_BYTES_MAX 1600

/* ---- Counting and reporting ---- */

void importer_count(struct importer *importer, uint64_t *count, uint64_t n)
{
    auto_lock held = lock_take(&importer->mutex);
    *count += n;
    if (importer->options->progress != NULL)
        importer->options->progress(importer->options->context, &importer->counts);
}

void importer_uncount(struct importer *importer, uint64_t *count, uint64_t n)
{
    auto_lock held = lock_take(&importer->mutex);
    *count -= n;
}

/* What sources say ends on a terminal: it must not steer it. */
static void disarm(char *text)
{
    for (char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
}

void importer_report(struct importer *importer, enum importer_finding finding, const char *fmt, ...)
{
    char text[REPORT_BYTES_MAX];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    disarm(text);
    auto_lock held = lock_take(&importer->mutex);
    if (importer->options->found != NULL)
        importer->options->found(importer->options->context, finding, text);
}

void importer_fail(struct importer *importer, const struct err *err)
{
    auto_lock held = lock_take(&importer->mutex);
    if (atomic_load(&importer->failed))
        return;
    importer->failure = *err;
    importer->failure.details = NULL; /* of a call that ends before this is read */
    importer->failure.n_details = 0;
    atomic_store(&importer->failed, true);
    atomic_store(&importer->source->stopping, true);
}

static bool is_silence(const struct err *err)
{
    return err->kind == ERR_IO || err->kind == ERR_TIMEOUT || err->kind == ERR_BUSY;
}

void importer_heard(struct importer *importer)
{
    auto_lock held = lock_take(&importer->mutex);
    importer->n_silent = 0;
}

/* Whether the source has failed to answer so often that it is gone. */
static bool is_gone(struct importer *importer, const struct err *err)
{
    auto_lock held = lock_take(&importer->mutex);
    importer->n_silent = is_silence(err) ? importer->n_silent + 1 : 0;
    return importer->source->kind->is_remote && importer->n_silent >= SILENT_MAX;
}

void importer_skip(struct importer *importer, struct str what, const struct err *err)
{
    if (atomic_load(&importer->failed)) /* it fails because everything does */
        return;
    importer_count(importer, &importer->counts.skipped, 1);
    importer_report(importer, IMPORTER_SKIPPED, STR_FMT ": %s%s%s%s", STR_ARG(what), err->say,
                    err->why[0] != '\0' ? " (" : "", err->why, err->why[0] != '\0' ? ")" : "");
    if (is_gone(importer, err)) {
        struct err gone;
        (void)err_set(&gone, err->kind, "the source does not answer any more: %s", err->say);
        importer_fail(importer, &gone);
    }
}

/* ---- The queue: what was listed, and is to be brought ---- */

struct item {
    char from[OCI_NAME_BYTES_MAX + 1];
    char to[OCI_NAME_BYTES_MAX + 1];
    char reference[REFERENCE_BYTES_MAX + 1];
};

struct queue {
    pthread_mutex_t mutex; /* of what follows */
    pthread_cond_t changed;
    struct item items[QUEUE_ITEMS]; /* a ring */
    size_t first;
    size_t n;
    bool closed; /* there will be no more */
};

static struct queue *queue_new(void)
{
    struct queue *queue = mem_zalloc(sizeof(*queue));
    require(pthread_mutex_init(&queue->mutex, NULL) == 0);
    require(pthread_cond_init(&queue->changed, NULL) == 0);
    return queue;
}

static void queue_free(struct queue *queue)
{
    (void)pthread_mutex_destroy(&queue->mutex);
    (void)pthread_cond_destroy(&queue->changed);
    free(queue);
}

/* Waits while it is full. */
static void queue_put(struct queue *queue, const struct item *item)
{
    auto_lock held = lock_take(&queue->mutex);
    while (queue->n == QUEUE_ITEMS)
        (void)pthread_cond_wait(&queue->changed, &queue->mutex);
    queue->items[(queue->first + queue->n++) % QUEUE_ITEMS] = *item;
    (void)pthread_cond_broadcast(&queue->changed);
}

static void queue_close(struct queue *queue)
{
    auto_lock held = lock_take(&queue->mutex);
    queue->closed = true;
    (void)pthread_cond_broadcast(&queue->changed);
}

/* Waits while it is empty. False: it was closed, and all is taken. */
static bool queue_take(struct queue *queue, struct item *ret)
{
    auto_lock held = lock_take(&queue->mutex);
    while (queue->n == 0 && !queue->closed)
        (void)pthread_cond_wait(&queue->changed, &queue->mutex);
    if (queue->n == 0)
        return false;
    *ret = queue->items[queue->first];
    queue->first = (queue->first + 1) % QUEUE_ITEMS;
    queue->n--;
    (void)pthread_cond_broadcast(&queue->changed);
    return true;
}

/* ---- Workers ---- */

static void *work(void *context)
{
    struct importer *importer = context;
    struct item item;
    while (queue_take(importer->queue, &item)) {
        if (atomic_load(&importer->failed)) /* the queue is emptied, so that nobody waits for it */
            continue;
        const struct oci_name from = {str_from(item.from)}; /* both were parsed before */
        const struct oci_name to = {str_from(item.to)};
        image_import(importer, &from, &to, str_from(item.reference));
        importer_count(importer, &importer->counts.done, 1);
    }
    return NULL;
}

/* ---- Listing ---- */

struct repository {
    struct importer *importer;
    const struct oci_name *from;
    const struct oci_name *to;
};

static int list_reference(void *context, struct str text, struct err *err)
{
    const struct repository *repository = context;
    struct importer *importer = repository->importer;
    struct item item;
    if (atomic_load(&importer->failed))
        return err_set(err, ERR_BUSY, "the import ends");
    importer_count(importer, &importer->counts.listed, 1);
    if (text.n > REFERENCE_BYTES_MAX || memchr(text.p != NULL ? text.p : "", '\0', text.n) != NULL)
        text = str_first(text, 0); /* which is no reference either */
    (void)snprintf(item.from, sizeof(item.from), STR_FMT, STR_ARG(repository->from->text));
    (void)snprintf(item.to, sizeof(item.to), STR_FMT, STR_ARG(repository->to->text));
    (void)snprintf(item.reference, sizeof(item.reference), STR_FMT, STR_ARG(text));
    queue_put(importer->queue, &item);
    return 0;
}

static bool is_wanted(const struct importer_options *options, const char *name)
{
    for (size_t i = 0; i < options->n_repositories; i++)
        if (fnmatch(options->repositories[i], name, 0) == 0)
            return true;
    return options->n_repositories == 0;
}

static int read_names(struct call *call, const struct importer *importer, struct str text,
                      struct oci_name *ret_from, struct oci_name *ret_to)
{
    const char *prefix = importer->options->prefix;
    if (oci_name_parse(text, ret_from, &call->err) < 0)
        return -1;
    struct str to =
        prefix != NULL ? str_printf(&call->arena, "%s/" STR_FMT, prefix, STR_ARG(text)) : text;
    return oci_name_parse(to, ret_to, &call->err);
}

static int list_repository(void *context, struct str text, struct err *err)
{
    struct importer *importer = context;
    struct importer_source *source = importer->source;
    auto_call call;
    call_init(&call);
    struct oci_name from;
    struct oci_name to;
    struct str what = str_printf(&call.arena, "repository \"" STR_FMT "\"",
                                 STR_ARG(str_first(text, OCI_NAME_BYTES_MAX)));
    if (atomic_load(&importer->failed))
        return err_set(err, ERR_BUSY, "the import ends");
    if (!is_wanted(importer->options, str_z(&call.arena, text)))
        return 0;
    importer_count(importer, &importer->counts.repositories, 1);
    struct repository repository = {importer, &from, &to};
    if (read_names(&call, importer, text, &from, &to) < 0 ||
        source->kind->references(source, &call, &from, list_reference, &repository) < 0)
        importer_skip(importer, what, &call.err);
    return 0;
}

/* ---- All of it ---- */

static int check_options(struct call *call, const struct importer_options *options)
{
    struct oci_name prefix;
    if (options->jobs < 1 || options->jobs > IMPORTER_JOBS_MAX)
        return err_set(&call->err, ERR_INVALID, "%u is not a number of jobs from 1 to %d",
                       options->jobs, IMPORTER_JOBS_MAX);
    if (options->prefix != NULL &&
        oci_name_parse(str_from(options->prefix), &prefix, &call->err) < 0)
        return -1;
    return 0;
}

/* This thread lists, the others bring. */
static void run(struct importer *importer, struct call *call)
{
    struct importer_source *source = importer->source;
    pthread_t threads[IMPORTER_JOBS_MAX];
    unsigned n = 0;
    while (n < importer->options->jobs && pthread_create(&threads[n], NULL, work, importer) == 0)
        n++;
    if (n == 0) {
        (void)err_set(&call->err, ERR_BUSY, "could not start a thread");
        importer_fail(importer, &call->err);
    } else if (source->kind->repositories(source, call, list_repository, importer) < 0) {
        importer_fail(importer, &call->err);
    }
    queue_close(importer->queue);
    for (unsigned i = 0; i < n; i++)
        require(pthread_join(threads[i], NULL) == 0);
}

int importer_run(struct call *call, struct importer_source *source, struct registry *registry,
                 const struct importer_options *options, struct importer_counts *ret_counts)
{
    *ret_counts = (struct importer_counts){0};
    require(registry != NULL || options->dry_run);
    if (check_options(call, options) < 0)
        return -1;
    struct importer importer = {.source = source,
                                .registry = registry,
                                .options = options,
                                .claims = claims_new(),
                                .seen = seen_new(),
                                .queue = queue_new()};
    require(pthread_mutex_init(&importer.mutex, NULL) == 0);
    atomic_store(&source->stopping, false);
    run(&importer, call);
    (void)pthread_mutex_destroy(&importer.mutex);
    queue_free(importer.queue);
    seen_free(importer.seen);
    claims_free(importer.claims);
    *ret_counts = importer.counts;
    if (!atomic_load(&importer.failed))
        return 0;
    call->err = importer.failure;
    return -1;
}
