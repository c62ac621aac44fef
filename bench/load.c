/* load: a client that pulls, pushes and measures. One blocking thread per connection, HTTP/1.1 with
 * keep-alive, plain or TLS; prints one line of JSON. Any failed or unexpected answer ends the run.
 *
 *   load --port N [--tls] [--connections N] [--requests N] [--seconds S] pull PATH [HEADER...]
 *   load --port N … follow PATH [HEADER...]                   a pull that is redirected
 *   load --port N … [--size BYTES] [--seed N] push NAME       POST, PUT with the bytes
 *   load --port N … [--size BYTES] [--seed N] stream NAME     POST, chunked PATCH, PUT (as Docker)
 *   load --port N … [--size BYTES] [--seed N] image NAME      layers, a config, a manifest
 *
 * Requests are counted over all connections; the first of --requests and --seconds ends the run.
 * Contents differ from each other, and their digests are known before the clock starts.
 * --port may be repeated: connections are dealt out to the servers in turn. So may --size: an image
 * has a layer of each size. A redirect leads to a plain server on loopback, to which each client
 * keeps a connection of its own. */
#include "base/base.h"

#include <gnutls/gnutls.h>

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>

#define CONNECTIONS_MAX 4096
#define REQUESTS_MAX UINT64_C(10000000)
#define SIZE_MAX_BYTES (UINT64_C(1) << 40)
#define HEAD_MAX 16384
/* One cipher for all servers, whatever they would prefer: the one that Docker ends up with. */
#define TLS_PRIORITY "NORMAL:-CIPHER-ALL:+AES-128-GCM"
#define RECEIVE_BYTES (256 * 1024)
/* Content is a first block of its own and then the same block again and again. A block is what
 * Go's HTTP client sends as one chunk; a batch of them goes out with one call. */
#define BLOCK_BYTES 32768
#define BATCH_BLOCKS 32
#define CHUNK_HEAD "8000\r\n"
#define CHUNK_BYTES (sizeof(CHUNK_HEAD) - 1 + BLOCK_BYTES + 2)
#define DIGEST_TEXT_BYTES (sizeof("sha256:") + 64)
#define PORTS_MAX 16
#define SIZES_MAX 8
#define SIZE_DEFAULT 10240

struct load {
    enum verb { PULL, FOLLOW, PUSH, STREAM, IMAGE } what;
    uint64_t ports[PORTS_MAX];
    size_t n_ports;
    uint64_t connections;
    uint64_t requests;
    uint64_t seconds;
    uint64_t sizes[SIZES_MAX]; /* of the layers of an image; else there is one */
    size_t n_sizes;
    uint64_t seed;
    bool tls;
    const char *name; /* the path of a pull, the repository of a push */
    struct buf headers;
    gnutls_certificate_credentials_t credentials;
    char *plain;   /* owned: a batch of blocks */
    char *chunked; /* owned: the same, framed as chunks */
    pthread_barrier_t ready;
};

/* A connection to one server. */
struct wire {
    uint64_t port; /* 0: none yet */
    int fd;
    gnutls_session_t session; /* NULL without TLS */
    char *in;                 /* owned: RECEIVE_BYTES */
    size_t in_at;
    size_t in_end;
};

struct client {
    struct load *load;
    uint64_t number;
    uint64_t requests;                  /* this client's share */
    char (*digests)[DIGEST_TEXT_BYTES]; /* of each request's contents, one after the other */
    int64_t *took_us;                   /* per request */
    uint64_t done;
    uint64_t bytes;
    struct wire registry;
    struct wire store;       /* where redirects lead */
    char location[2048];     /* of the last answer: a path */
    uint64_t location_port;  /* 0: it named no server */
    char first[BLOCK_BYTES]; /* of the content being pushed */
    pthread_t thread;
};

struct answer {
    unsigned status;
    uint64_t length;
};

static _Noreturn void fail(const char *fmt, ...) PRINTF_LIKE(1, 2);

static _Noreturn void fail(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)fputs("load: ", stderr);
    (void)vfprintf(stderr, fmt, args);
    (void)fputc('\n', stderr);
    va_end(args);
    _exit(1);
}

/* ---- The connection ---- */

static void wire_connect(struct wire *wire, uint64_t port,
                         gnutls_certificate_credentials_t credentials)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port), /* bounded when it was read */
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int yes = 1;
    wire->in = mem_alloc(RECEIVE_BYTES);
    wire->port = port;
    wire->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (wire->fd < 0 || connect(wire->fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        setsockopt(wire->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes)) < 0)
        fail("could not connect to port %" PRIu64 ": %s", port, strerror(errno));
    if (credentials == NULL)
        return;

    int rc = gnutls_init(&wire->session, GNUTLS_CLIENT);
    if (rc == GNUTLS_E_SUCCESS)
        rc = gnutls_priority_set_direct(wire->session, TLS_PRIORITY, NULL);
    if (rc == GNUTLS_E_SUCCESS)
        rc = gnutls_credentials_set(wire->session, GNUTLS_CRD_CERTIFICATE, credentials);
    if (rc == GNUTLS_E_SUCCESS) {
        /* The certificate is not checked: it was made for this run. */
        gnutls_transport_set_int(wire->session, wire->fd);
        rc = gnutls_handshake(wire->session);
    }
    if (rc != GNUTLS_E_SUCCESS)
        fail("could not begin TLS: %s", gnutls_strerror(rc));
}

static void wire_send(struct wire *wire, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t sent = wire->session != NULL ? gnutls_record_send(wire->session, p, n)
                                             : send(wire->fd, p, n, MSG_NOSIGNAL);
        if (sent < 0 && wire->session == NULL && errno == EINTR)
            continue;
        if (sent <= 0)
            fail("could not send: %s",
                 wire->session != NULL ? gnutls_strerror((int)sent) : strerror(errno));
        p += sent;
        n -= (size_t)sent;
    }
}

/* Replaces what is buffered by what arrives next, or appends to it when `keep`. */
static void wire_receive(struct wire *wire, bool keep)
{
    if (!keep)
        wire->in_at = wire->in_end = 0;
    char *p = wire->in + wire->in_end;
    size_t room = RECEIVE_BYTES - wire->in_end;
    ssize_t got;
    do
        got = wire->session != NULL ? gnutls_record_recv(wire->session, p, room)
                                    : recv(wire->fd, p, room, 0);
    while (wire->session != NULL ? got == GNUTLS_E_AGAIN || got == GNUTLS_E_INTERRUPTED
                                 : got < 0 && errno == EINTR);
    if (got <= 0)
        fail("the server closed the connection");
    wire->in_end += (size_t)got;
}

/* ---- HTTP ---- */

/* The server may give a whole URL: an upload goes on at the one connection, a redirect leads where
 * the URL says. */
static void location_keep(struct client *client, struct str value)
{
    client->location_port = 0;
    if (str_starts(value, STR("http://")) || str_starts(value, STR("https://"))) {
        value = str_from_at(value, str_find(value, ':') + 3);
        struct str port = str_first(value, str_find(value, '/'));
        value = str_from_at(value, port.n);
        port = str_from_at(port, str_find(port, ':') + 1);
        if (!str_eat_u64(&port, 65535, &client->location_port))
            client->location_port = 0;
    }
    if (value.n == 0 || value.n >= sizeof(client->location))
        fail("a Location that cannot be used: \"" STR_FMT "\"", STR_ARG(value));
    memcpy(client->location, value.p, value.n);
    client->location[value.n] = '\0';
}

static void head_parse(struct client *client, struct str head, struct answer *ret)
{
    struct str line = str_cut(&head, '\n');
    struct str rest = str_from_at(line, sizeof("HTTP/1.1 ") - 1);
    uint64_t status;
    bool length_known = false;
    if (!str_starts(line, STR("HTTP/1.1 ")) || !str_eat_u64(&rest, 999, &status))
        fail("not HTTP: \"" STR_FMT "\"", STR_ARG(line));
    ret->status = (unsigned)status;
    ret->length = 0;
    while (head.n > 0) {
        line = str_cut(&head, '\n');
        if (line.n > 0 && line.p[line.n - 1] == '\r')
            line.n--;
        struct str name = str_cut(&line, ':');
        struct str value = str_trim(line);
        if (str_eq_nocase(name, STR("location")))
            location_keep(client, value);
        if (str_eq_nocase(name, STR("content-length")))
            length_known = str_eat_u64(&value, SIZE_MAX_BYTES, &ret->length);
    }
    if (!length_known && status != 204 && status / 100 != 1)
        fail("an answer %" PRIu64 " without Content-Length", status);
}

/* Reads an answer and drops its body. The status must be `expected`. */
static void wire_answer(struct client *client, struct wire *wire, unsigned expected, bool has_body)
{
    const char *end;
    while ((end = memmem(wire->in + wire->in_at, wire->in_end - wire->in_at, "\r\n\r\n", 4)) ==
           NULL) {
        if (wire->in_end - wire->in_at > HEAD_MAX)
            fail("an answer with a head of more than %d bytes", HEAD_MAX);
        wire_receive(wire, /* keep= */ wire->in_end > wire->in_at);
    }
    struct str head = {wire->in + wire->in_at, (size_t)(end - wire->in) - wire->in_at + 2};
    struct answer answer;
    head_parse(client, head, &answer);
    wire->in_at += head.n + 2;

    if (answer.status != expected)
        fail("answer %u instead of %u: " STR_FMT, answer.status, expected,
             STR_ARG(((struct str){wire->in, wire->in_end})));
    uint64_t left = has_body ? answer.length : 0;
    client->bytes += left;
    while (left > 0) {
        if (wire->in_at == wire->in_end)
            wire_receive(wire, /* keep= */ false);
        size_t here = wire->in_end - wire->in_at;
        if (here > left)
            here = (size_t)left;
        wire->in_at += here;
        left -= here;
    }
}

static void client_send(struct client *client, const char *p, size_t n)
{
    wire_send(&client->registry, p, n);
}

static void answer_read(struct client *client, unsigned expected, bool has_body)
{
    wire_answer(client, &client->registry, expected, has_body);
}

static void head_begin(const struct wire *wire, struct buf *out, const char *method,
                       const char *path)
{
    buf_printf(out, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%" PRIu64 "\r\n", method, path, wire->port);
}

/* ---- Content ---- */

/* splitmix64 */
static uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void random_fill(char *p, size_t n, uint64_t state)
{
    for (size_t i = 0; i < n; i += sizeof(uint64_t)) {
        uint64_t word = random_next(&state);
        memcpy(p + i, &word, sizeof(word));
    }
}

static void batches_make(struct load *load)
{
    load->plain = mem_alloc((size_t)BATCH_BLOCKS * BLOCK_BYTES);
    load->chunked = mem_alloc(BATCH_BLOCKS * CHUNK_BYTES);
    for (size_t i = 0; i < BATCH_BLOCKS; i++) {
        char *block = load->plain + i * BLOCK_BYTES;
        char *chunk = load->chunked + i * CHUNK_BYTES;
        random_fill(block, BLOCK_BYTES, /* state= */ 1);
        memcpy(chunk, CHUNK_HEAD, sizeof(CHUNK_HEAD) - 1);
        memcpy(chunk + sizeof(CHUNK_HEAD) - 1, block, BLOCK_BYTES);
        memcpy(chunk + CHUNK_BYTES - 2, "\r\n", 2);
    }
}

static size_t first_bytes(uint64_t size)
{
    return size < BLOCK_BYTES ? (size_t)size : BLOCK_BYTES;
}

/* `content` counts the contents of all requests. */
static void first_make(struct client *client, uint64_t content)
{
    uint64_t state = client->load->seed * REQUESTS_MAX + client->number;
    state = random_next(&state) + content;
    random_fill(client->first, BLOCK_BYTES, state);
}

static void digest_format(struct hash *hash, char text[DIGEST_TEXT_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t bytes[HASH_BYTES_MAX];
    hash_final(hash, bytes);
    memcpy(text, "sha256:", 7);
    for (size_t i = 0; i < hash_bytes(HASH_SHA256); i++) {
        text[7 + 2 * i] = digits[bytes[i] >> 4];
        text[8 + 2 * i] = digits[bytes[i] & 15];
    }
    text[DIGEST_TEXT_BYTES - 1] = '\0';
}

static void text_digest(struct str text, char digest[DIGEST_TEXT_BYTES])
{
    struct hash hash;
    hash_init(&hash, HASH_SHA256);
    hash_update(&hash, text.p, text.n);
    digest_format(&hash, digest);
}

static void content_digest(const struct client *client, uint64_t size,
                           char digest[DIGEST_TEXT_BYTES])
{
    struct hash hash;
    hash_init(&hash, HASH_SHA256);
    hash_update(&hash, client->first, first_bytes(size));
    for (uint64_t left = size - first_bytes(size), n; left > 0; left -= n) {
        n = left < BLOCK_BYTES ? left : BLOCK_BYTES;
        hash_update(&hash, client->load->plain, (size_t)n);
    }
    digest_format(&hash, digest);
}

/* ---- What is measured ---- */

static void pull(struct client *client, struct buf *out)
{
    head_begin(&client->registry, out, "GET", client->load->name);
    buf_add_str(out, buf_str(&client->load->headers));
    buf_add_str(out, STR("\r\n"));
    client_send(client, out->p, out->n);
    answer_read(client, client->load->what == FOLLOW ? 307 : 200, /* has_body= */ true);
}

/* A pull whose bytes another server has. */
static void pull_followed(struct client *client, struct buf *out)
{
    struct wire *store = &client->store;
    pull(client, out);
    if (client->location_port == 0)
        fail("a redirect that names no server: %s", client->location);
    if (store->port == 0)
        wire_connect(store, client->location_port, /* credentials= */ NULL);
    if (store->port != client->location_port)
        fail("redirects lead to several servers");
    out->n = 0;
    head_begin(store, out, "GET", client->location);
    buf_add_str(out, STR("\r\n"));
    wire_send(store, out->p, out->n);
    wire_answer(client, store, 200, /* has_body= */ true);
}

static void upload_begin(struct client *client, struct buf *out)
{
    char path[512];
    (void)snprintf(path, sizeof(path), "/v2/%s/blobs/uploads/", client->load->name);
    out->n = 0;
    head_begin(&client->registry, out, "POST", path);
    buf_add_str(out, STR("Content-Length: 0\r\n\r\n"));
    client_send(client, out->p, out->n);
    answer_read(client, 202, /* has_body= */ true);
}

/* The PUT that ends an upload, up to the end of its head. */
static void finish_head(struct client *client, struct buf *out, const char *digest, uint64_t length)
{
    char path[sizeof(client->location) + DIGEST_TEXT_BYTES + 16];
    (void)snprintf(path, sizeof(path), "%s%cdigest=%s", client->location,
                   strchr(client->location, '?') != NULL ? '&' : '?', digest);
    out->n = 0;
    head_begin(&client->registry, out, "PUT", path);
    buf_printf(out, "Content-Type: application/octet-stream\r\nContent-Length: %" PRIu64 "\r\n\r\n",
               length);
}

static void push(struct client *client, struct buf *out, const char *digest, uint64_t size)
{
    const struct load *load = client->load;
    upload_begin(client, out);
    finish_head(client, out, digest, size);
    buf_add(out, client->first, first_bytes(size));
    client_send(client, out->p, out->n);
    for (uint64_t left = size - first_bytes(size), n; left > 0; left -= n) {
        n = left < BATCH_BLOCKS * BLOCK_BYTES ? left : BATCH_BLOCKS * BLOCK_BYTES;
        client_send(client, load->plain, (size_t)n);
    }
    answer_read(client, 201, /* has_body= */ true);
    client->bytes += size;
}

static void push_streamed(struct client *client, struct buf *out, const char *digest, uint64_t size)
{
    const struct load *load = client->load;
    upload_begin(client, out);
    out->n = 0;
    head_begin(&client->registry, out, "PATCH", client->location);
    buf_add_str(out, STR("Content-Type: application/octet-stream\r\n"
                         "Transfer-Encoding: chunked\r\n\r\n" CHUNK_HEAD));
    buf_add(out, client->first, BLOCK_BYTES);
    buf_add_str(out, STR("\r\n"));
    client_send(client, out->p, out->n);
    for (uint64_t left = size / BLOCK_BYTES - 1, n; left > 0; left -= n) {
        n = left < BATCH_BLOCKS ? left : BATCH_BLOCKS;
        client_send(client, load->chunked, (size_t)n * CHUNK_BYTES);
    }
    client_send(client, "0\r\n\r\n", 5);
    answer_read(client, 202, /* has_body= */ true);

    finish_head(client, out, digest, 0);
    client_send(client, out->p, out->n);
    answer_read(client, 201, /* has_body= */ true);
    client->bytes += size;
}

/* As clients do: ask before each upload. */
static void blob_missing(struct client *client, struct buf *out, const char *digest)
{
    char path[1024];
    (void)snprintf(path, sizeof(path), "/v2/%s/blobs/%s", client->load->name, digest);
    out->n = 0;
    head_begin(&client->registry, out, "HEAD", path);
    buf_add_str(out, STR("\r\n"));
    client_send(client, out->p, out->n);
    answer_read(client, 404, /* has_body= */ false);
}

/* The config of the image, whose layers have those digests. */
static void push_config(struct client *client, struct buf *out, struct str config,
                        char digest[DIGEST_TEXT_BYTES])
{
    text_digest(config, digest);
    blob_missing(client, out, digest);
    upload_begin(client, out);
    finish_head(client, out, digest, config.n);
    buf_add_str(out, config);
    client_send(client, out->p, out->n);
    answer_read(client, 201, /* has_body= */ true);
}

static void push_manifest(struct client *client, struct buf *out, struct str manifest,
                          uint64_t request)
{
    char path[512];
    (void)snprintf(path, sizeof(path), "/v2/%s/manifests/t%" PRIu64 "-%" PRIu64 "-%" PRIu64,
                   client->load->name, client->load->seed, client->number, request);
    out->n = 0;
    head_begin(&client->registry, out, "PUT", path);
    buf_printf(out,
               "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n"
               "Content-Length: %zu\r\n\r\n",
               manifest.n);
    buf_add_str(out, manifest);
    client_send(client, out->p, out->n);
    answer_read(client, 201, /* has_body= */ true);
}

static void push_image(struct client *client, struct buf *out,
                       const char (*digests)[DIGEST_TEXT_BYTES], uint64_t request)
{
    const struct load *load = client->load;
    auto_buf config = BUF_INIT(4096);
    auto_buf manifest = BUF_INIT(8192);
    char config_digest[DIGEST_TEXT_BYTES];
    buf_add_str(&config, STR("{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Env\":"
                             "[\"PATH=/bin\"],\"Cmd\":[\"/bin/sh\"]},\"rootfs\":{\"type\":"
                             "\"layers\",\"diff_ids\":["));
    for (size_t i = 0; i < load->n_sizes; i++) {
        first_make(client, request * load->n_sizes + i);
        blob_missing(client, out, digests[i]);
        push(client, out, digests[i], load->sizes[i]);
        buf_printf(&config, "%s\"%s\"", i > 0 ? "," : "", digests[i]);
    }
    buf_add_str(&config, STR("]}}"));
    push_config(client, out, buf_str(&config), config_digest);

    buf_printf(&manifest,
               "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\","
               "\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\","
               "\"digest\":\"%s\",\"size\":%zu},\"layers\":[",
               config_digest, config.n);
    for (size_t i = 0; i < load->n_sizes; i++)
        buf_printf(&manifest,
                   "%s{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\","
                   "\"digest\":\"%s\",\"size\":%" PRIu64 "}",
                   i > 0 ? "," : "", digests[i], load->sizes[i]);
    buf_add_str(&manifest, STR("]}"));
    push_manifest(client, out, buf_str(&manifest), request);
}

static bool pushes(const struct load *load)
{
    return load->what != PULL && load->what != FOLLOW;
}

static void request_run(struct client *client, struct buf *out, uint64_t request)
{
    const struct load *load = client->load;
    const char(*digests)[DIGEST_TEXT_BYTES] = NULL;
    if (pushes(load))
        digests = &client->digests[request * load->n_sizes];
    if (load->what == PUSH || load->what == STREAM)
        first_make(client, request);
    out->n = 0;
    switch (load->what) {
    case PULL:
        pull(client, out);
        break;
    case FOLLOW:
        pull_followed(client, out);
        break;
    case PUSH:
        push(client, out, digests[0], load->sizes[0]);
        break;
    case STREAM:
        push_streamed(client, out, digests[0], load->sizes[0]);
        break;
    case IMAGE:
        push_image(client, out, digests, request);
        break;
    }
}

/* Before the clock starts. */
static void digests_make(struct client *client)
{
    const struct load *load = client->load;
    size_t n = (size_t)client->requests * load->n_sizes;
    client->digests = mem_alloc(n * DIGEST_TEXT_BYTES + 1);
    for (size_t i = 0; i < n; i++) {
        first_make(client, i);
        content_digest(client, load->sizes[i % load->n_sizes], client->digests[i]);
    }
}

static void *client_run(void *argument)
{
    struct client *client = argument;
    struct load *load = client->load;
    auto_buf out = BUF_INIT(2 * BLOCK_BYTES);
    client->took_us = mem_alloc((size_t)client->requests * sizeof(*client->took_us) + 1);
    if (pushes(load))
        digests_make(client);
    wire_connect(&client->registry, load->ports[client->number % load->n_ports], load->credentials);

    (void)pthread_barrier_wait(&load->ready);
    struct mono_us began = clock_mono();
    while (client->done < client->requests &&
           clock_since_us(began) < (int64_t)load->seconds * CLOCK_SECOND_US) {
        struct mono_us request_began = clock_mono();
        request_run(client, &out, client->done);
        client->took_us[client->done++] = clock_since_us(request_began);
    }
    return NULL;
}

/* ---- The whole ---- */

static int compare_i64(const void *a, const void *b)
{
    int64_t x;
    int64_t y;
    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    return (x > y) - (x < y);
}

static void report(const struct load *load, const struct client *clients, int64_t us)
{
    uint64_t done = 0;
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < load->connections; i++) {
        done += clients[i].done;
        bytes += clients[i].bytes;
    }
    if (done == 0)
        fail("no request ended in time");
    auto_mem int64_t *took = mem_alloc((size_t)done * sizeof(*took));
    size_t n = 0;
    for (uint64_t i = 0; i < load->connections; i++)
        for (uint64_t k = 0; k < clients[i].done; k++)
            took[n++] = clients[i].took_us[k];
    qsort(took, n, sizeof(*took), compare_i64);
    printf("{\"requests\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"seconds\": %.6f, "
           "\"p50_us\": %" PRId64 ", \"p99_us\": %" PRId64 ", \"max_us\": %" PRId64
           ", \"cipher\": \"%s\"}\n",
           done, bytes, (double)us / 1e6, took[n / 2], took[n * 99 / 100], took[n - 1],
           load->tls ? gnutls_cipher_get_name(gnutls_cipher_get(clients[0].registry.session)) : "");
}

static void run(struct load *load)
{
    struct client *clients = mem_zalloc((size_t)load->connections * sizeof(*clients));
    if (load->requests < load->connections)
        load->connections = load->requests;
    require(pthread_barrier_init(&load->ready, NULL, (unsigned)load->connections + 1) == 0);
    for (uint64_t i = 0; i < load->connections; i++) {
        clients[i] = (struct client){.load = load, .number = i};
        clients[i].requests =
            load->requests / load->connections + (i < load->requests % load->connections ? 1 : 0);
        require(pthread_create(&clients[i].thread, NULL, client_run, &clients[i]) == 0);
    }
    (void)pthread_barrier_wait(&load->ready);
    struct mono_us began = clock_mono();
    for (uint64_t i = 0; i < load->connections; i++)
        require(pthread_join(clients[i].thread, NULL) == 0);
    report(load, clients, clock_since_us(began));
    /* What the clients own goes with the process. */
}

static uint64_t number_or_fail(const char *flag, const char *text, uint64_t low, uint64_t high)
{
    uint64_t value;
    struct err err = {0};
    if (str_to_u64(str_from(text), high, &value, &err) < 0 || value < low)
        fail("--%s wants a number from %" PRIu64 " to %" PRIu64 ", not \"%s\"", flag, low, high,
             text);
    return value;
}

static void list_add(uint64_t value, uint64_t *list, size_t *n, size_t max)
{
    if (*n == max)
        fail("a flag is repeated more than %zu times", max);
    list[(*n)++] = value;
}

static void flags_read(struct load *load, int argc, char **argv)
{
    static const struct option flags[] = {
        {"port", required_argument, NULL, 0},
        {"connections", required_argument, NULL, 1},
        {"requests", required_argument, NULL, 2},
        {"seconds", required_argument, NULL, 3},
        {"size", required_argument, NULL, 4},
        {"seed", required_argument, NULL, 5},
        {"tls", no_argument, NULL, 6},
        {0},
    };
    static const uint64_t low[] = {1, 1, 1, 1, 1, 0};
    static const uint64_t high[] = {65535,  CONNECTIONS_MAX, REQUESTS_MAX,
                                    100000, SIZE_MAX_BYTES,  UINT32_MAX};
    uint64_t *const fields[] = {NULL, &load->connections, &load->requests, &load->seconds,
                                NULL, &load->seed};
    for (int flag; (flag = getopt_long(argc, argv, "", flags, NULL)) != -1;) {
        if (flag == 6) {
            load->tls = true;
            continue;
        }
        if ((size_t)flag >= ARRAY_SIZE(fields))
            fail("see the head of load.c for the flags");
        uint64_t value = number_or_fail(flags[flag].name, optarg, low[flag], high[flag]);
        if (flag == 0)
            list_add(value, load->ports, &load->n_ports, PORTS_MAX);
        else if (flag == 4)
            list_add(value, load->sizes, &load->n_sizes, SIZES_MAX);
        else
            *fields[flag] = value;
    }
    if (load->n_sizes == 0)
        list_add(SIZE_DEFAULT, load->sizes, &load->n_sizes, SIZES_MAX);
}

static void arguments_read(struct load *load, int argc, char **argv)
{
    static const char *const verbs[] = {[PULL] = "pull",
                                        [FOLLOW] = "follow",
                                        [PUSH] = "push",
                                        [STREAM] = "stream",
                                        [IMAGE] = "image"};
    flags_read(load, argc, argv);
    size_t verb = 0;
    while (verb < ARRAY_SIZE(verbs) && (optind >= argc || strcmp(argv[optind], verbs[verb]) != 0))
        verb++;
    if (verb == ARRAY_SIZE(verbs) || optind + 2 > argc || load->n_ports == 0)
        fail("wants --port N and pull, follow, push, stream or image with a path or repository");
    load->what = (enum verb)verb;
    load->name = argv[optind + 1];
    for (int i = optind + 2; i < argc; i++)
        buf_printf(&load->headers, "%s\r\n", argv[i]);
    if (pushes(load) && load->requests == REQUESTS_MAX)
        fail("a push wants --requests");
    if (load->what != IMAGE && load->n_sizes > 1)
        fail("only an image has several layers");
    if (load->what == STREAM && load->sizes[0] % BLOCK_BYTES != 0)
        fail("--size of a stream wants a multiple of %d", BLOCK_BYTES);
}

int main(int argc, char **argv)
{
    struct load load = {.connections = 1,
                        .requests = REQUESTS_MAX,
                        .seconds = 100000,
                        .headers = BUF_INIT(HEAD_MAX)};
    arguments_read(&load, argc, argv);
    if (pushes(&load))
        batches_make(&load);
    if (load.tls)
        require(gnutls_certificate_allocate_credentials(&load.credentials) == GNUTLS_E_SUCCESS);
    run(&load);
    return 0;
}
