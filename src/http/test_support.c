#include "http/test_support.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

extern char **environ;

/* ---- The application ---- */

#define BODY_BYTES_MAX ((size_t)8 << 20)

struct state {
    struct buf body;
    bool keeps;
};

static bool is_path(const struct http_exchange *x, const char *path)
{
    return str_eq(x->path, str_from(path));
}

static uint64_t number(struct http_exchange *x, const char *name, uint64_t fallback)
{
    struct str value = {NULL, 0};
    uint64_t n = 0;
    if (http_query_find(x, name, &value) < 0 || value.p == NULL ||
        str_to_u64(value, UINT64_MAX, &n, &x->call.err) < 0)
        return fallback;
    return n;
}

static int app_begin(void *context, struct http_exchange *x)
{
    struct test_app *app = context;
    atomic_fetch_add(&app->begun, 1);
    if (x->certified)
        atomic_fetch_add(&app->certified, 1);
    http_respond_header(x, "X-Test", "yes");

    struct state *state = mem_zalloc(sizeof(*state));
    state->body = BUF_INIT(BODY_BYTES_MAX);
    state->keeps = is_path(x, "/echo");
    x->state = state;
    x->waits = is_path(x, "/wait") || is_path(x, "/wait-refused");
    if (is_path(x, "/refuse") || is_path(x, "/wait-refused")) {
        http_respond_text(x, 401, "text/plain", STR("who are you?\n"));
        return -1;
    }
    return 0;
}

static int app_body(void *context, struct http_exchange *x, struct str piece)
{
    (void)context;
    struct state *state = x->state;
    if (state->keeps)
        buf_add_str(&state->body, piece);
    if (!is_path(x, "/refuse-body"))
        return 0;
    http_respond_text(x, 413, "text/plain", STR("too much\n"));
    return -1;
}

static void answer_file(struct test_app *app, struct http_exchange *x)
{
    struct stat st;
    require(fstat(app->file, &st) == 0);
    uint64_t offset = number(x, "offset", 0);
    x->response.status = 200;
    x->response.fd = fcntl(app->file, F_DUPFD_CLOEXEC, 3);
    x->response.offset = offset;
    x->response.size = number(x, "size", (uint64_t)st.st_size - offset);
    http_respond_header(x, "Content-Type", "application/octet-stream");
}

static void answer_header_of(struct http_exchange *x)
{
    struct str name = {NULL, 0};
    require(http_query_find(x, "name", &name) == 0);
    const char *text = str_z(&x->call.arena, name);
    struct str one = http_header(x, text);
    struct str all = http_header_all(x, text);
    http_respond_text(x, 200, "text/plain",
                      str_printf(&x->call.arena, "%s|" STR_FMT "|" STR_FMT,
                                 one.p != NULL ? "there" : "absent", STR_ARG(one), STR_ARG(all)));
}

static void answer_text(struct http_exchange *x)
{
    struct arena *arena = &x->call.arena;
    struct str text = STR("hello\n");
    if (is_path(x, "/target")) {
        text = str_printf(arena, "%d " STR_FMT "|" STR_FMT "|" STR_FMT, (int)x->method,
                          STR_ARG(x->method_text), STR_ARG(x->path), STR_ARG(x->query));
    } else if (is_path(x, "/origin") || is_path(x, "/trusted")) {
        struct http_origin origin;
        http_origin(x, is_path(x, "/trusted"), &origin);
        text = str_printf(arena, "%s|" STR_FMT "|" STR_FMT, origin.scheme, STR_ARG(origin.host),
                          STR_ARG(origin.client));
    } else if (is_path(x, "/length") || is_path(x, "/wait") || is_path(x, "/refuse-body")) {
        text = str_printf(arena, "%llu", (unsigned long long)x->bytes_in);
    }
    http_respond_text(x, 200, "text/plain", text);
}

static void app_end(void *context, struct http_exchange *x)
{
    struct test_app *app = context;
    struct state *state = x->state;
    if (x->waits) {
        atomic_fetch_add(&app->running, 1);
        test_sleep_us((int64_t)number(x, "ms", 0) * 1000);
        atomic_fetch_sub(&app->running, 1);
    }
    if (is_path(x, "/file")) {
        answer_file(app, x);
    } else if (is_path(x, "/header")) {
        answer_header_of(x);
    } else if (is_path(x, "/echo")) {
        http_respond_text(x, 200, "application/octet-stream", buf_str(&state->body));
    } else if (is_path(x, "/size")) {
        x->response.status = 200;
        x->response.size_only = true;
        x->response.size = number(x, "size", 0);
    } else if (is_path(x, "/empty")) {
        x->response.status = 204;
    } else if (is_path(x, "/same")) {
        x->response.status = 304;
        x->response.size_only = true;
        x->response.size = 1234;
    } else {
        answer_text(x);
    }
}

static void app_refuse(void *context, struct http_exchange *x)
{
    struct test_app *app = context;
    atomic_fetch_add(&app->refused, 1);
    http_respond_header(x, "Retry-After", "1");
    http_respond_text(
        x, x->response.status, "text/plain",
        str_printf(&x->call.arena, "%s: %s", err_kind_name(x->call.err.kind), x->call.err.say));
}

static void app_done(void *context, struct http_exchange *x, bool complete)
{
    struct test_app *app = context;
    struct state *state = x->state;
    if (state != NULL) {
        buf_done(&state->body);
        free(state);
        atomic_fetch_add(&app->done, 1);
        atomic_fetch_add(&app->complete, complete);
    }
}

/* ---- The server ---- */

void test_prepare(struct test_server *server)
{
    static const char *const routes[] = {"test"};
    *server = (struct test_server){0};
    server->app.app = (struct http_app){.context = &server->app,
                                        .begin = app_begin,
                                        .body = app_body,
                                        .end = app_end,
                                        .refuse = app_refuse,
                                        .done = app_done};
    server->app.file = -1;
    server->metrics = metrics_new(routes, 1);
    server->options = (struct http_options){
        .threads = 3,
        .workers = 2,
        .queue = 16,
        .connections = 200,
        .connections_per_address = 200,
        .header_us = 20 * CLOCK_SECOND_US,
        .idle_us = 20 * CLOCK_SECOND_US,
        .body_us = 20 * CLOCK_SECOND_US,
    };
}

void test_start(struct test_server *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(address);
    struct err err = {0};
    int listener = -1;
    if (http_listen((struct sockaddr *)&address, n, "127.0.0.1", &listener, &err) < 0)
        fail_msg("%s", err.say);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &n), 0);
    server->port = ntohs(address.sin_port);
    server->options.listeners = &listener;
    server->options.n_listeners = 1;
    server->options.metrics = server->metrics;
    server->options.app = &server->app.app;
    if (http_start(&server->options, &server->server, &err) < 0)
        fail_msg("%s", err.say);
}

size_t test_stop(struct test_server *server, int64_t limit_us)
{
    size_t cut = http_stop(server->server, limit_us);
    server->server = NULL;
    assert_int_equal(atomic_load(&server->app.done), atomic_load(&server->app.begun));
    auto_buf text = BUF_INIT(65536);
    metrics_format(server->metrics, NULL, &text);
    assert_non_null(strstr(text.p, "\nholdfast_connections 0\n"));
    metrics_free(TAKE(server->metrics));
    return cut;
}

/* ---- The client ---- */

bool client_try(const struct test_server *server, struct client *ret)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(server->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct client client = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    assert_true(client.fd >= 0);
    if (connect(client.fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        (void)close(client.fd);
        return false;
    }
    *ret = client;
    return true;
}

struct client client_open(const struct test_server *server)
{
    struct client client = {.fd = -1};
    assert_true(client_try(server, &client));
    return client;
}

void client_close(struct client *client)
{
    if (client->session != NULL)
        gnutls_deinit(client->session);
    if (client->credentials != NULL)
        gnutls_certificate_free_credentials(client->credentials);
    (void)close(client->fd);
    free(client->received);
    *client = (struct client){.fd = -1};
}

bool client_send(struct client *client, const void *bytes, size_t n)
{
    for (size_t at = 0; at < n;) {
        const char *p = (const char *)bytes + at;
        ssize_t sent = client->session != NULL ? gnutls_record_send(client->session, p, n - at)
                                               : send(client->fd, p, n - at, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        at += (size_t)sent;
    }
    return true;
}

bool client_say(struct client *client, const char *text)
{
    return client_send(client, text, strlen(text));
}

bool client_printf(struct client *client, const char *fmt, ...)
{
    char text[2048];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    assert_true(n > 0 && (size_t)n < sizeof(text));
    return client_send(client, text, (size_t)n);
}

static bool is_readable(struct client *client, int64_t within_us)
{
    if (client->session != NULL && gnutls_record_check_pending(client->session) > 0)
        return true;
    struct pollfd polled = {.fd = client->fd, .events = POLLIN};
    return poll(&polled, 1, (int)(within_us / 1000)) > 0;
}

/* Reads some more. False at the end, and when the connection broke. */
static bool receive(struct client *client)
{
    if (!is_readable(client, 20 * CLOCK_SECOND_US))
        fail_msg("no answer within 20 s; so far: %.200s",
                 client->received != NULL ? client->received : "");
    const size_t piece = 256 * 1024;
    client->received = mem_realloc(client->received, client->n_received + piece + 1);
    char *p = client->received + client->n_received;
    ssize_t n = client->session != NULL ? gnutls_record_recv(client->session, p, piece)
                                        : recv(client->fd, p, piece, 0);
    if (n <= 0) {
        client->received[client->n_received] = '\0';
        return false;
    }
    client->n_received += (size_t)n;
    client->received[client->n_received] = '\0';
    return true;
}

static void give_out(struct client *client, size_t n)
{
    client->n_received -= n;
    memmove(client->received, client->received + n, client->n_received + 1);
}

const char *answer_header(const struct answer *answer, const char *name)
{
    static _Thread_local char value[512];
    char wanted[100];
    (void)snprintf(wanted, sizeof(wanted), "\r\n%s: ", name);
    const char *at = strcasestr(answer->head, wanted);
    if (at == NULL)
        return NULL;
    at += strlen(wanted);
    struct str text = {at, strcspn(at, "\r")};
    (void)snprintf(value, sizeof(value), STR_FMT, STR_ARG(text));
    return value;
}

static char *copy_of(const char *p, size_t n)
{
    char *copy = mem_alloc(n + 1);
    memcpy(copy, p, n);
    copy[n] = '\0';
    return copy;
}

struct answer client_answer(struct client *client, bool to_head)
{
    struct answer answer = {0};
    const char *end = NULL;
    while (client->received == NULL || (end = strstr(client->received, "\r\n\r\n")) == NULL)
        if (!receive(client)) {
            answer.head = mem_strdup("");
            answer.body = mem_strdup("");
            return answer;
        }
    size_t head_bytes = (size_t)(end - client->received) + 4;
    answer.head = copy_of(client->received, head_bytes);
    give_out(client, head_bytes);
    struct err err;
    uint64_t n = 0;
    assert_memory_equal(answer.head, "HTTP/1.1 ", 9);
    assert_int_equal(str_to_u64((struct str){answer.head + 9, 3}, 999, &n, &err), 0);
    answer.status = (unsigned)n;

    uint64_t length = 0;
    const char *text = answer_header(&answer, "Content-Length");
    bool bodiless = to_head || n == 204 || n == 304 || n == 100;
    if (text != NULL && !bodiless)
        assert_int_equal(str_to_u64(str_from(text), SIZE_MAX, &length, &err), 0);
    while (client->n_received < length)
        if (!receive(client)) {
            answer.cut = true;
            length = client->n_received;
        }
    answer.body = copy_of(client->received, length);
    answer.body_bytes = length;
    give_out(client, length);
    return answer;
}

void answer_free(struct answer *answer)
{
    free(answer->head);
    free(answer->body);
    *answer = (struct answer){0};
}

void client_expect(struct client *client, const char *request, unsigned status)
{
    assert_true(client_say(client, request));
    struct answer answer = client_answer(client, strncmp(request, "HEAD ", 5) == 0);
    if (answer.status != status)
        fail_msg("status %u instead of %u for %s", answer.status, status, request);
    answer_free(&answer);
}

bool client_ended(struct client *client, int64_t within_us)
{
    struct mono_us began = clock_mono();
    char bytes[4096];
    for (;;) {
        int64_t left = within_us - clock_since_us(began);
        if (left <= 0 || !is_readable(client, left))
            return false;
        ssize_t n = client->session != NULL
                        ? gnutls_record_recv(client->session, bytes, sizeof(bytes))
                        : recv(client->fd, bytes, sizeof(bytes), 0);
        if (n <= 0)
            return true;
    }
}

/* ---- Files and programs ---- */

static char folder[] = "/tmp/test_http.XXXXXX";

static void remove_folder(void)
{
    DIR *dir = opendir(folder);
    if (dir == NULL)
        return;
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir))
        (void)unlinkat(dirfd(dir), entry->d_name, 0);
    (void)closedir(dir);
    (void)rmdir(folder);
}

const char *test_folder(void)
{
    static bool made;
    if (!made) {
        assert_non_null(mkdtemp(folder));
        made = true;
        (void)atexit(remove_folder);
    }
    return folder;
}

int test_file(const char *name, size_t bytes)
{
    char path[200];
    (void)snprintf(path, sizeof(path), "%s/%s", test_folder(), name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    unsigned char block[1021 * 8];
    for (size_t i = 0; i < sizeof(block); i++)
        block[i] = (unsigned char)(i % 1021 * 7);
    for (size_t at = 0; at < bytes; at += sizeof(block)) {
        size_t n = bytes - at < sizeof(block) ? bytes - at : sizeof(block);
        assert_int_equal(pwrite(fd, block, n, (off_t)at), n);
    }
    return fd;
}

int test_run(const char *output_file, const char *const *argv)
{
    posix_spawn_file_actions_t actions;
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    assert_int_equal(posix_spawn_file_actions_addopen(&actions, 1, output_file,
                                                      O_WRONLY | O_CREAT | O_TRUNC, 0600),
                     0);
    assert_int_equal(posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0), 0);
    pid_t pid = 0;
    int failed =
        posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    if (failed != 0)
        return -1;
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void test_sleep_us(int64_t us)
{
    struct timespec t = {.tv_sec = us / CLOCK_SECOND_US, .tv_nsec = us % CLOCK_SECOND_US * 1000};
    while (nanosleep(&t, &t) < 0 && errno == EINTR)
        ;
}
