/* The client itself, and fetch_perform with its kept connections. */
#include "fetch/fetch_int.h"

#include <gnutls/x509.h>

#include <signal.h>

#define KEPT_IDLE_US (60 * CLOCK_SECOND_US)

/* ---- The client ---- */

/* libcurl would report a broken file at the first connection, and not by its name. */
static int check_ca_file(const char *path, struct err *err)
{
    gnutls_datum_t pem = {NULL, 0};
    int code = gnutls_load_file(path, &pem);
    gnutls_x509_crt_t *certificates = NULL;
    unsigned n = 0;
    if (code >= 0)
        code = gnutls_x509_crt_list_import2(&certificates, &n, &pem, GNUTLS_X509_FMT_PEM, 0);
    for (unsigned i = 0; i < n; i++)
        gnutls_x509_crt_deinit(certificates[i]);
    gnutls_free(certificates);
    gnutls_free(pem.data);
    if (code < 0 || n == 0)
        return err_set(err, ERR_INVALID, "CA file \"%s\" cannot be used: %s", path,
                       code < 0 ? gnutls_strerror(code) : "it holds no certificate");
    return 0;
}

int fetch_new(const struct fetch_options *options, struct fetch **ret, struct err *err)
{
    if (options->ca_file != NULL && check_ca_file(options->ca_file, err) < 0)
        return -1;
    require(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
    (void)signal(SIGPIPE, SIG_IGN); /* a peer that hangs up is an error like others */
    struct fetch *fetch = mem_zalloc(sizeof(*fetch));
    fetch->options = *options;
    fetch->ca_file = options->ca_file != NULL ? mem_strdup(options->ca_file) : NULL;
    fetch->options.ca_file = fetch->ca_file;
    fetch->give_up_us = INT64_MAX;
    require(pthread_mutex_init(&fetch->mutex, NULL) == 0);
    fetch->kept = mem_zalloc((options->connections + (size_t)1) * sizeof(*fetch->kept));
    *ret = fetch;
    return 0;
}

void fetch_give_up(struct fetch *fetch, struct mono_us at)
{
    atomic_store(&fetch->give_up_us, at.us);
}

static void kept_done(struct kept *kept)
{
    curl_easy_cleanup(kept->easy);
    free(kept->origin);
}

void fetch_free(struct fetch *fetch)
{
    if (fetch == NULL)
        return;
    driver_free(fetch->driver);
    for (size_t i = 0; i < fetch->n_kept; i++)
        kept_done(&fetch->kept[i]);
    free(fetch->kept);
    free(fetch->ca_file);
    require(pthread_mutex_destroy(&fetch->mutex) == 0);
    free(fetch);
    curl_global_cleanup();
}

/* ---- Kept connections ---- */

/* The handle that talked to this server last; a new one when there is none. */
static struct kept kept_take(struct fetch *fetch, struct str origin)
{
    {
        auto_lock held = lock_take(&fetch->mutex);
        for (size_t i = fetch->n_kept; i-- > 0;) {
            if (!str_eq(str_from(fetch->kept[i].origin), origin))
                continue;
            struct kept kept = fetch->kept[i];
            fetch->n_kept--;
            memmove(&fetch->kept[i], &fetch->kept[i + 1],
                    (fetch->n_kept - i) * sizeof(*fetch->kept));
            return kept;
        }
    }
    struct kept kept = {.easy = curl_easy_init(), .origin = mem_alloc(origin.n + 1), .fd = -1};
    require(kept.easy != NULL);
    memcpy(kept.origin, origin.p, origin.n);
    kept.origin[origin.n] = '\0';
    return kept;
}

/* Adds a handle, and gives back one that is not to be kept any more: it was idle for too long, or
 * there is no room. */
static struct kept kept_exchange(struct fetch *fetch, struct kept kept)
{
    auto_lock held = lock_take(&fetch->mutex);
    fetch->kept[fetch->n_kept++] = kept;
    if (fetch->n_kept <= fetch->options.connections &&
        clock_since_us(fetch->kept[0].since) < KEPT_IDLE_US)
        return (struct kept){0};
    struct kept oldest = fetch->kept[0];
    fetch->n_kept--;
    memmove(fetch->kept, fetch->kept + 1, fetch->n_kept * sizeof(*fetch->kept));
    return oldest;
}

static void kept_give(struct fetch *fetch, struct kept kept)
{
    curl_easy_reset(kept.easy);
    kept.since = clock_mono();
    struct kept old = kept_exchange(fetch, kept);
    if (old.easy != NULL)
        kept_done(&old); /* may say good-bye to the peer: not under the lock */
}

/* ---- One request ---- */

struct perform {
    struct call *call;
    const struct fetch *fetch;
    const struct fetch_request *request;
    int fd; /* of the connection */
    struct head head;
    struct buf body;
    bool begun;  /* `begin` was asked */
    bool failed; /* with call->err set: the library's own code says less */
    struct mono_us moved;
    curl_off_t bytes; /* that had moved by then */
    char text[CURL_ERROR_SIZE];
};

static bool is_success(const struct perform *perform)
{
    return perform->head.status >= 200 && perform->head.status < 300;
}

static struct fetch_answer answer_of(const struct perform *perform)
{
    return (struct fetch_answer){
        .status = perform->head.status,
        .headers = buf_str(&perform->head.lines),
        .body = buf_str(&perform->body),
    };
}

static size_t on_header(char *p, size_t size, size_t n, void *context)
{
    (void)size; /* 1 */
    struct perform *perform = context;
    perform->moved = clock_mono();
    bool was_complete = perform->head.complete;
    if (head_add(&perform->head, (struct str){p, n}, &perform->call->err) == 0) {
        if (!was_complete && perform->head.complete)
            transfer_acknowledge(perform->fd);
        return n;
    }
    perform->failed = true;
    return 0;
}

static int begin(struct perform *perform)
{
    if (perform->begun)
        return 0;
    perform->begun = true;
    const struct fetch_answer answer = answer_of(perform);
    const struct fetch_request *request = perform->request;
    if (!is_success(perform) || request->begin == NULL)
        return 0;
    return request->begin(request->context, &answer, &perform->call->err);
}

static int keep(struct perform *perform, struct str piece)
{
    buf_add_str(&perform->body, piece);
    if (perform->body.overflow)
        return err_set(&perform->call->err, ERR_TOO_LARGE,
                       "another server's answer is larger than %zu bytes", perform->body.max);
    return 0;
}

static size_t on_body(char *p, size_t size, size_t n, void *context)
{
    (void)size; /* 1 */
    struct perform *perform = context;
    const struct fetch_request *request = perform->request;
    struct str piece = {p, n};
    int result = begin(perform);
    if (result == 0)
        result = is_success(perform) && request->take != NULL
                     ? request->take(request->context, piece, &perform->call->err)
                     : keep(perform, piece);
    perform->moved = clock_mono(); /* after `take`: its time is not the peer's silence */
    perform->failed = result < 0;
    return result < 0 ? 0 : n;
}

/* Is called at least once a second. */
static int on_progress(void *context, curl_off_t down_total, curl_off_t down, curl_off_t up_total,
                       curl_off_t up)
{
    (void)down_total;
    (void)up_total;
    struct perform *perform = context;
    if (down + up != perform->bytes) {
        perform->bytes = down + up;
        perform->moved = clock_mono();
    }
    return clock_since_us(perform->moved) > perform->fetch->options.silence_us ||
           transfer_given_up(perform->fetch);
}

static int on_socket(void *context, curl_socket_t fd, curlsocktype purpose)
{
    (void)purpose;
    struct perform *perform = context;
    perform->fd = fd;
    return CURL_SOCKOPT_OK;
}

static int set_up(struct perform *perform, CURL *easy, struct curl_slist **ret_headers)
{
    if (transfer_setup(easy, perform->fetch, perform->request, ret_headers, &perform->call->err) <
        0)
        return -1;
    curl_easy_setopt(easy, CURLOPT_MAXCONNECTS, 1L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, perform->text);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, perform);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, perform);
    curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, on_socket);
    curl_easy_setopt(easy, CURLOPT_SOCKOPTDATA, perform);
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(easy, CURLOPT_XFERINFODATA, perform);
    if (perform->request->within_us > 0)
        curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(perform->request->within_us / 1000 + 1));
    return 0;
}

/* The peer had closed a kept connection, and saw nothing of the request or was about to refuse it.
 * The library notices most of these by itself, but not one that breaks while a body is sent. */
static bool was_stale(const struct perform *perform, CURL *easy, CURLcode code)
{
    long connects = 0;
    curl_easy_getinfo(easy, CURLINFO_NUM_CONNECTS, &connects);
    return connects == 0 && perform->head.status == 0 &&
           (code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR || code == CURLE_GOT_NOTHING);
}

static int run(struct perform *perform, CURL *easy, struct str origin)
{
    struct err *err = &perform->call->err;
    perform->moved = clock_mono();
    CURLcode code = curl_easy_perform(easy);
    if (code != CURLE_OK && was_stale(perform, easy, code)) {
        perform->moved = clock_mono();
        curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
        code = curl_easy_perform(easy);
    }
    if (perform->failed)
        return -1;
    if (code == CURLE_ABORTED_BY_CALLBACK)
        return transfer_silent(perform->fetch, origin, err);
    if (code != CURLE_OK)
        return transfer_failed(code, perform->text, origin, err);
    return begin(perform); /* an answer without a body */
}

int fetch_perform(struct call *call, struct fetch *fetch, const struct fetch_request *request,
                  struct fetch_answer *ret)
{
    struct str origin;
    if (url_origin(request->url, &origin, &call->err) < 0)
        return -1;
    if (transfer_given_up(fetch))
        return transfer_silent(fetch, origin, &call->err);
    size_t body_max = request->answer_bytes_max;
    struct perform perform = {
        .call = call,
        .fetch = fetch,
        .request = request,
        .head = HEAD_INIT,
        .body = BUF_INIT(body_max > 0 ? body_max : FETCH_ANSWER_BYTES_MAX),
    };
    struct kept kept = kept_take(fetch, origin);
    perform.fd = kept.fd;
    struct curl_slist *headers = NULL;
    int result = set_up(&perform, kept.easy, &headers);
    if (result == 0)
        result = run(&perform, kept.easy, origin);
    if (result == 0) {
        *ret = answer_of(&perform);
        ret->headers = str_dup(&call->arena, ret->headers);
        ret->body = str_dup(&call->arena, ret->body);
    }
    kept.fd = perform.fd;
    kept_give(fetch, kept);
    curl_slist_free_all(headers);
    buf_done(&perform.head.lines);
    buf_done(&perform.body);
    return result;
}

struct str fetch_header(const struct fetch_answer *answer, const char *name)
{
    struct str rest = answer->headers;
    while (rest.n > 0) {
        struct str line = str_cut(&rest, '\n');
        if (str_ends(line, STR("\r")))
            line.n--;
        size_t colon = str_find(line, ':');
        if (colon < line.n && str_eq_nocase(str_first(line, colon), str_from(name)))
            return str_trim(str_from_at(line, colon + 1));
    }
    return (struct str){NULL, 0};
}
