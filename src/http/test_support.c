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

/* ---- The server ---- */

void test_prepare(struct test_server *server)
{
    static const char *const routes[] = {"test"};
    *server = (struct test_server){0};
    test_app_init(&server->app);
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

static void *stop(void *arg)
{
    struct test_stopping *stopping = arg;
    struct mono_us began = clock_mono();
    stopping->cut = http_stop(TAKE(stopping->server->server), stopping->limit_us);
    stopping->took_us = clock_since_us(began);
    atomic_store(&stopping->stopped, true);
    return NULL;
}

void test_stop_begin(struct test_server *server, int64_t limit_us, struct test_stopping *ret)
{
    *ret = (struct test_stopping){.server = server, .limit_us = limit_us};
    assert_int_equal(pthread_create(&ret->thread, NULL, stop, ret), 0);
}

void test_stop_join(struct test_stopping *stopping)
{
    assert_int_equal(pthread_join(stopping->thread, NULL), 0);
    struct test_server *server = stopping->server;
    auto_buf text = BUF_INIT(65536);
    metrics_format(server->metrics, NULL, &text);
    assert_non_null(strstr(text.p, "\nholdfast_connections 0\n"));
    metrics_free(TAKE(server->metrics));
    test_app_done(&server->app);
}

size_t test_stop(struct test_server *server, int64_t limit_us)
{
    struct test_stopping stopping;
    test_stop_begin(server, limit_us, &stopping);
    test_stop_join(&stopping);
    return stopping.cut;
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
        block[i] = test_byte(i);
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
