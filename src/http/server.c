#include "http/http_int.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/abstract.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/eventfd.h>

/* The library's memory of one connection: the head, the read buffer (half of it at first, growing
 * with each read of a body), the answer's head. Above 32 KiB it is mapped, so that untouched pages
 * cost nothing; but all of it is set to zero between two requests of a connection.
 * Measured, CPU time of a small GET at 256 connections, and of receiving and hashing 512 MiB:
 *   32 KiB 10.0 us, 440 ms; 64 KiB 10.4 us, 450 ms; 128 KiB 12.6 us, 440 ms; 256 KiB 14.8 us, 390
 * ms 64 KiB holds the largest head that is allowed; more costs every request and 256 idle
 * connections 16 MiB for each doubling, and gains uploads little. */
#define POOL_BYTES ((size_t)64 * 1024)

void server_wake(struct http_server *server)
{
    uint64_t one = 1;
    (void)!write(server->wake, &one, sizeof(one));
}

/* ---- Connections ---- */

static void connection_opened(struct http_server *server, struct MHD_Connection *mhd,
                              void **context)
{
    struct http_connection *connection = mem_zalloc(sizeof(*connection));
    connection->server = server;
    connection->mhd = mhd;
    connection->fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    connection->peer =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr;
    if (server->tls != NULL) {
        connection->session =
            MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION)->tls_session;
        connection->credentials = tls_attach(server->tls, connection->session);
    }
    atomic_init(&connection->stage, STAGE_OPEN);
    atomic_init(&connection->source, SOURCE_QUIET);
    connection->seen = STAGE_OPEN;
    connection->since = clock_mono();
    *context = connection;

    metrics_connections_add(server->options.metrics, 1);
    bool first = false;
    {
        auto_lock held = lock_take(&server->lock);
        connection->next = server->connections;
        if (connection->next != NULL)
            connection->next->previous = connection;
        server->connections = connection;
        first = server->n_connections++ == 0;
        if (server->n_arriving > 0)
            server->n_arriving--;
    }
    if (first) /* the gate sleeps for as long as there are none to watch */
        server_wake(server);
}

static bool has_unread_bytes(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* A first line without a space, such as a TLS greeting, makes the library close without a word.
 * Clients that try TLS first tell a plain server by an answer in HTTP. */
static void answer_gibberish(const struct http_connection *connection)
{
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n"
                                 "Content-Length: 0\r\n\r\n";
    if (connection->session == NULL && atomic_load(&connection->stage) == STAGE_OPEN)
        (void)send(connection->fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* The library has freed what requests point into, and is about to close the socket. */
static void connection_closes(struct http_server *server, struct http_connection *connection)
{
    connection->mhd = NULL;
    answer_gibberish(connection);
    /* Some ways of the library to give a connection up tell of the connection alone. */
    if (connection->exchange != NULL)
        exchange_end(connection->exchange, false);
    bool lingers = connection->lingers || has_unread_bytes(connection->fd);
    bool wake = lingers;
    {
        auto_lock held = lock_take(&server->lock);
        if (connection->previous != NULL)
            connection->previous->next = connection->next;
        else
            server->connections = connection->next;
        if (connection->next != NULL)
            connection->next->previous = connection->previous;
        server->n_connections--;
        if (lingers)
            linger_add(server, connection->fd);
        wake = wake || server->full;
        (void)pthread_cond_signal(&server->fewer);
    }
    if (wake)
        server_wake(server);
    metrics_connections_add(server->options.metrics, -1);
    tls_unref(connection->credentials);
    free(connection);
}

void connection_notify(void *cls, struct MHD_Connection *mhd, void **context,
                       enum MHD_ConnectionNotificationCode code)
{
    struct http_server *server = cls;
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        connection_opened(server, mhd, context);
    else if (*context != NULL)
        connection_closes(server, *context);
}

/* ---- Start and stop ---- */

static size_t keep_escapes(void *cls, struct MHD_Connection *mhd, char *text)
{
    (void)cls;
    (void)mhd;
    return strlen(text);
}

/* The library asks for some way to find a certificate; connection_opened has set one before this
 * could be called. */
static int no_certificate(gnutls_session_t session, const gnutls_datum_t *request, int n_request,
                          const gnutls_pk_algorithm_t *algorithms, int n_algorithms,
                          gnutls_pcert_st **ret_chain, unsigned *ret_n, gnutls_privkey_t *ret_key)
{
    (void)session;
    (void)request;
    (void)n_request;
    (void)algorithms;
    (void)n_algorithms;
    (void)ret_chain;
    (void)ret_n;
    (void)ret_key;
    return -1;
}

static int start_daemon(struct http_server *server, struct err *err)
{
    const struct http_options *options = &server->options;
    unsigned threads = options->threads > 0 ? options->threads : 1;
    /* The gate enforces the limit; the library would divide it by the threads. */
    unsigned limit = 0;
    if (__builtin_mul_overflow(options->connections + 1, threads, &limit))
        limit = UINT_MAX;

    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ITC |
                     MHD_ALLOW_SUSPEND_RESUME;
    struct MHD_OptionItem more[4] = {{MHD_OPTION_END, 0, NULL}};
    size_t n = 0;
    if (threads > 1)
        more[n++] = (struct MHD_OptionItem){MHD_OPTION_THREAD_POOL_SIZE, (intptr_t)threads, NULL};
    if (server->tls != NULL) {
        flags |= MHD_USE_TLS;
        more[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_PRIORITIES, 0,
                                            (void *)(uintptr_t)tls_priorities()};
        more[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_CERT_CALLBACK, 0,
                                            (void *)(uintptr_t)no_certificate};
    } else {
        /* No shutdown before a close, so that answer_gibberish can still say something; under TLS
         * that shutdown is the closing alert, and stays. */
        flags |= MHD_USE_TURBO;
    }
    more[n] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};

    server->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, exchange_step, server, MHD_OPTION_URI_LOG_CALLBACK, exchange_start,
        server, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_NOTIFY_COMPLETED,
        exchange_completed, server, MHD_OPTION_NOTIFY_CONNECTION, connection_notify, server,
        MHD_OPTION_CONNECTION_LIMIT, limit, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
        options->connections_per_address, MHD_OPTION_CONNECTION_MEMORY_LIMIT, POOL_BYTES,
        MHD_OPTION_CONNECTION_MEMORY_INCREMENT, POOL_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, 0U,
        MHD_OPTION_ARRAY, more, MHD_OPTION_END);
    if (server->daemon == NULL)
        return err_set(err, ERR_IO, "cannot start the HTTP server with %u threads", threads);
    return 0;
}

static void server_free(struct http_server *server)
{
    for (size_t i = 0; i < server->n_listeners; i++)
        fd_close_auto(&server->listeners[i]);
    linger_drop(server);
    tls_free(server->tls);
    fd_close_auto(&server->wake);
    (void)pthread_cond_destroy(&server->fewer);
    (void)pthread_mutex_destroy(&server->lock);
    free(server->listeners);
    free(server);
}

static struct http_server *server_new(const struct http_options *options)
{
    struct http_server *server = mem_zalloc(sizeof(*server));
    server->options = *options;
    server->app = options->app;
    server->listeners = mem_zalloc((options->n_listeners + 1) * sizeof(*server->listeners));
    for (size_t i = 0; i < options->n_listeners; i++) {
        server->listeners[i] = options->listeners[i];
        /* One that was handed over may block, and the gate must not. */
        int flags = fcntl(options->listeners[i], F_GETFL);
        (void)fcntl(options->listeners[i], F_SETFL, flags | O_NONBLOCK);
        (void)fcntl(options->listeners[i], F_SETFD, FD_CLOEXEC);
    }
    server->n_listeners = options->n_listeners;
    server->wake = -1;

    pthread_condattr_t attributes;
    require(pthread_condattr_init(&attributes) == 0);
    require(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    require(pthread_cond_init(&server->fewer, &attributes) == 0);
    (void)pthread_condattr_destroy(&attributes);
    require(pthread_mutex_init(&server->lock, NULL) == 0);
    return server;
}

static int start(struct http_server *server, struct err *err)
{
    const struct http_options *options = &server->options;
    if (options->certificate_file != NULL && tls_new(options, &server->tls, err) < 0)
        return -1;
    server->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (server->wake < 0)
        return err_set(err, ERR_IO, "cannot make an eventfd: %s", strerrordesc_np(errno));
    if (workers_start(&server->workers, options->workers, options->queue, err) < 0)
        return -1;
    if (start_daemon(server, err) == 0) {
        if (gate_start(server, err) == 0)
            return 0;
        MHD_stop_daemon(server->daemon);
    }
    workers_stop(&server->workers);
    return -1;
}

int http_start(const struct http_options *options, struct http_server **ret, struct err *err)
{
    /* Clients that go away while they are answered are everyday life. */
    (void)signal(SIGPIPE, SIG_IGN);
    struct http_server *server = server_new(options);
    if (start(server, err) < 0) {
        server_free(server);
        return -1;
    }
    *ret = server;
    return 0;
}

int http_reload_certificate(struct http_server *server, struct err *err)
{
    return server->tls != NULL ? tls_reload(server->tls, err) : 0;
}

bool http_certificate_changed(struct http_server *server)
{
    return server->tls != NULL && tls_changed(server->tls);
}

/* Tells connections without a request to go: what has arrived is still read, then comes the end. */
static void dismiss_idle(struct http_server *server)
{
    for (struct http_connection *c = server->connections; c != NULL; c = c->next)
        if (stage_is_free(stage_get(c)))
            (void)shutdown(c->fd, SHUT_RD);
}

/* Returns the number of requests that are cut off. */
static size_t cut_off(struct http_server *server)
{
    size_t n = 0;
    for (struct http_connection *c = server->connections; c != NULL; c = c->next) {
        n += !stage_is_free(stage_get(c));
        (void)shutdown(c->fd, SHUT_RDWR);
    }
    return n;
}

static struct timespec as_timespec(int64_t us)
{
    return (struct timespec){.tv_sec = us / CLOCK_SECOND_US,
                             .tv_nsec = us % CLOCK_SECOND_US * 1000};
}

static size_t drain(struct http_server *server, int64_t limit_us)
{
    const int64_t end_us = clock_mono().us + limit_us;
    auto_lock held = lock_take(&server->lock);
    while (server->n_connections > 0) {
        int64_t now_us = clock_mono().us;
        if (now_us >= end_us)
            return cut_off(server);
        /* Again and again: a connection may have become idle since. */
        dismiss_idle(server);
        int64_t next_us = now_us + CLOCK_SECOND_US / 50;
        struct timespec until = as_timespec(next_us < end_us ? next_us : end_us);
        (void)pthread_cond_timedwait(&server->fewer, &server->lock, &until);
    }
    return 0;
}

size_t http_stop(struct http_server *server, int64_t limit_us)
{
    atomic_store(&server->draining, true);
    server_wake(server);
    size_t n = drain(server, limit_us);
    /* The library must not be stopped while a connection is suspended. From here on none stays so
     * for a stream, and then none is handed to a worker: workers_reserve() says no. */
    source_stop(server);
    gate_stop(server);
    workers_stop(&server->workers);
    MHD_stop_daemon(server->daemon);
    server_free(server);
    return n;
}

int http_listen(const struct sockaddr *address, socklen_t bytes, const char *text, int *ret,
                struct err *err)
{
    auto_fd fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int on = 1;
    if (fd < 0)
        return err_set(err, ERR_IO, "cannot listen on %s: %s", text, strerrordesc_np(errno));
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    /* [::] and 0.0.0.0 can be listened on side by side. */
    if (address->sa_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    if (bind(fd, address, bytes) < 0 || listen(fd, SOMAXCONN) < 0)
        return err_set(err, ERR_IO, "cannot listen on %s: %s", text, strerrordesc_np(errno));
    *ret = take_fd(&fd);
    return 0;
}
