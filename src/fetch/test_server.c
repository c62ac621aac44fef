#include "test_server.h"

#include "base/test_tree.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define CONNECTIONS_MAX 512
#define HEAD_MAX ((size_t)256 * 1024)

extern char **environ;

struct test_connection {
    struct test_server *server;
    pthread_t thread;
    int fd;
    gnutls_session_t tls; /* NULL without */
    unsigned number;
    struct buf in;
};

struct test_server {
    test_answer *answer;
    void *context;
    int fd;
    char url[64];
    unsigned port;
    pthread_t thread;
    gnutls_certificate_credentials_t certificate; /* NULL without */
    pthread_mutex_t mutex;                        /* of what follows */
    bool stopping;
    unsigned requests;
    unsigned n_connections;
    struct test_connection *connections[CONNECTIONS_MAX];
};

static ssize_t receive(struct test_connection *c, void *p, size_t n)
{
    return c->tls != NULL ? gnutls_record_recv(c->tls, p, n) : recv(c->fd, p, n, 0);
}

bool test_send(struct test_exchange *x, const void *p, size_t n)
{
    const char *rest = p;
    while (n > 0) {
        ssize_t sent = x->on->tls != NULL ? gnutls_record_send(x->on->tls, rest, n)
                                          : send(x->on->fd, rest, n, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        rest += sent;
        n -= (size_t)sent;
    }
    return true;
}

bool test_say(struct test_exchange *x, const char *fmt, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, fmt);
    int n = vasprintf(&text, fmt, args);
    va_end(args);
    require(n >= 0);
    bool sent = test_send(x, text, (size_t)n);
    free(text);
    return sent;
}

bool test_reply(struct test_exchange *x, const char *status, const char *headers, struct str body)
{
    return test_say(x, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s\r\n", status, body.n, headers) &&
           test_send(x, body.p, body.n);
}

struct str test_header(const struct test_exchange *x, const char *name)
{
    struct str rest = x->head;
    (void)str_cut(&rest, '\n');
    while (rest.n > 0) {
        struct str value = str_cut(&rest, '\n');
        struct str key = str_cut(&value, ':');
        if (str_eq_nocase(key, str_from(name)))
            return str_trim(str_ends(value, STR("\r")) ? str_first(value, value.n - 1) : value);
    }
    return (struct str){NULL, 0};
}

static bool read_more(struct test_connection *c)
{
    char piece[8192];
    ssize_t n = receive(c, piece, sizeof(piece));
    if (n > 0)
        buf_add(&c->in, piece, (size_t)n);
    return n > 0;
}

/* One request whole; what it names is in c->in until the next. */
static bool read_request(struct test_connection *c, struct test_exchange *x)
{
    const char *end = NULL;
    while (c->in.n == 0 || (end = memmem(c->in.p, c->in.n, "\r\n\r\n", 4)) == NULL)
        if (c->in.n > HEAD_MAX || !read_more(c))
            return false;
    size_t head = (size_t)(end - c->in.p) + 4;
    x->head = (struct str){c->in.p, head};
    struct err err;
    uint64_t body = 0;
    struct str length = test_header(x, "Content-Length");
    if (length.p != NULL && str_to_u64(length, (uint64_t)1 << 31, &body, &err) < 0)
        return false;
    while (c->in.n < head + body)
        if (!read_more(c))
            return false;
    x->head = (struct str){c->in.p, head};
    x->body = (struct str){c->in.p + head, (size_t)body};
    struct str line = x->head;
    x->method = str_cut(&line, ' ');
    x->target = str_cut(&line, ' ');
    return true;
}

static void drop_request(struct test_connection *c, const struct test_exchange *x)
{
    size_t n = x->head.n + x->body.n;
    memmove(c->in.p, c->in.p + n, c->in.n - n);
    c->in.n -= n;
}

static void *serve(void *context)
{
    struct test_connection *c = context;
    struct test_server *server = c->server;
    if (c->tls != NULL && gnutls_handshake(c->tls) < 0) {
        (void)shutdown(c->fd, SHUT_RDWR);
        return NULL;
    }
    struct test_exchange x = {.connection = c->number, .on = c};
    bool open = true;
    while (open && read_request(c, &x)) {
        {
            auto_lock held = lock_take(&server->mutex);
            x.number = ++server->requests;
        }
        x.nth++;
        open = server->answer(server->context, &x);
        drop_request(c, &x);
    }
    (void)shutdown(c->fd, SHUT_RDWR);
    return NULL;
}

static void start_connection(struct test_server *server, int fd)
{
    struct test_connection *c = mem_zalloc(sizeof(*c));
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    c->server = server;
    c->fd = fd;
    c->in = BUF_INIT((size_t)1 << 31);
    if (server->certificate != NULL) {
        require(gnutls_init(&c->tls, GNUTLS_SERVER) == 0);
        require(gnutls_set_default_priority(c->tls) == 0);
        require(gnutls_credentials_set(c->tls, GNUTLS_CRD_CERTIFICATE, server->certificate) == 0);
        gnutls_transport_set_int(c->tls, fd);
    }
    auto_lock held = lock_take(&server->mutex);
    require(server->n_connections < CONNECTIONS_MAX);
    server->connections[server->n_connections++] = c;
    c->number = server->n_connections;
    require(pthread_create(&c->thread, NULL, serve, c) == 0);
}

static void *accept_all(void *context)
{
    struct test_server *server = context;
    for (;;) {
        int fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            return NULL;
        start_connection(server, fd);
    }
}

struct test_server *test_server_start(test_answer *answer, void *context, const char *certificate,
                                      const char *key)
{
    struct test_server *server = mem_zalloc(sizeof(*server));
    server->answer = answer;
    server->context = context;
    require(pthread_mutex_init(&server->mutex, NULL) == 0);
    if (certificate != NULL) {
        require(gnutls_certificate_allocate_credentials(&server->certificate) == 0);
        require(gnutls_certificate_set_x509_key_file(server->certificate, certificate, key,
                                                     GNUTLS_X509_FMT_PEM) == 0);
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(address);
    server->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    require(bind(server->fd, (struct sockaddr *)&address, n) == 0);
    require(listen(server->fd, 512) == 0);
    require(getsockname(server->fd, (struct sockaddr *)&address, &n) == 0);
    server->port = ntohs(address.sin_port);
    (void)snprintf(server->url, sizeof(server->url), "http%s://127.0.0.1:%u",
                   certificate != NULL ? "s" : "", server->port);
    require(pthread_create(&server->thread, NULL, accept_all, server) == 0);
    return server;
}

void test_server_stop(struct test_server *server)
{
    (void)shutdown(server->fd, SHUT_RDWR);
    require(pthread_join(server->thread, NULL) == 0);
    (void)close(server->fd);
    for (unsigned i = 0; i < server->n_connections; i++) {
        struct test_connection *c = server->connections[i];
        (void)shutdown(c->fd, SHUT_RDWR);
        require(pthread_join(c->thread, NULL) == 0);
        if (c->tls != NULL)
            gnutls_deinit(c->tls);
        (void)close(c->fd);
        buf_done(&c->in);
        free(c);
    }
    if (server->certificate != NULL)
        gnutls_certificate_free_credentials(server->certificate);
    require(pthread_mutex_destroy(&server->mutex) == 0);
    free(server);
}

const char *test_server_url(const struct test_server *server)
{
    return server->url;
}

unsigned test_server_port(const struct test_server *server)
{
    return server->port;
}

unsigned test_server_requests(struct test_server *server)
{
    auto_lock held = lock_take(&server->mutex);
    return server->requests;
}

unsigned test_server_connections(struct test_server *server)
{
    auto_lock held = lock_take(&server->mutex);
    return server->n_connections;
}

void test_sleep_us(int64_t us)
{
    struct timespec t = {.tv_sec = us / CLOCK_SECOND_US, .tv_nsec = us % CLOCK_SECOND_US * 1000};
    (void)nanosleep(&t, NULL);
}

int test_run(const char *const *argv)
{
    posix_spawn_file_actions_t actions;
    require(posix_spawn_file_actions_init(&actions) == 0);
    for (int fd = 1; fd <= 2; fd++)
        require(posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_WRONLY, 0) == 0);
    pid_t pid;
    int status = -1;
    int number =
        posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    require(posix_spawn_file_actions_destroy(&actions) == 0);
    if (number != 0 || waitpid(pid, &status, 0) != pid)
        return -1;
    return status;
}

static char folder[] = "/tmp/holdfast-test-XXXXXX";

static void remove_folder(void)
{
    (void)test_tree_remove(folder);
}

const char *test_folder(void)
{
    static bool made;
    if (!made) {
        require(mkdtemp(folder) != NULL);
        require(atexit(remove_folder) == 0);
        made = true;
    }
    return folder;
}

void test_write_file(const char *path, struct str content)
{
    auto_fd fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    require(fd >= 0 && write(fd, content.p, content.n) == (ssize_t)content.n);
}
