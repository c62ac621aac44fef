/* Raw bytes through a real server: request lines, heads, bodies, pipelining, and what the handlers
 * make of them. The input is sent as it is and the sending side closed; the server must answer or
 * close within seconds, and still answer a ping afterwards. */
#include "api/api.h"
#include "base/test_tree.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#define PATIENCE_MS 20000
#define APART_MS 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/tmp/holdfast-fuzz-XXXXXX";
static struct sockaddr_in address;

static void remove_folder(void)
{
    (void)test_tree_remove(folder);
}

/* The server lives as long as the process. */
static void start(void)
{
    static struct config config;
    static char listen_flag[] = "--listen=127.0.0.1:0";
    static char access_flag[] = "--log-access=false";
    static char level_flag[] = "--log-level=error";
    static char *arguments[] = {listen_flag, access_flag, level_flag};
    const struct config_sources sources = {.arguments = arguments, .n_arguments = 3};
    auto_buf complaints = BUF_INIT(CONFIG_COMPLAINTS_BYTES_MAX);
    require(config_load(&sources, &config, &complaints) == 0);

    require(mkdtemp(folder) != NULL);
    require(atexit(remove_folder) == 0);
    (void)signal(SIGPIPE, SIG_IGN);
    const struct registry_options options = {.data = folder,
                                             .readers = 4,
                                             .busy_us = 5 * CLOCK_SECOND_US,
                                             .expire_us = 3600 * CLOCK_SECOND_US};
    struct registry *registry;
    struct err err;
    require(registry_open(&options, &registry, &err) == 0);

    size_t n_routes;
    const char *const *routes = api_route_names(&n_routes);
    struct metrics *metrics = metrics_new(routes, n_routes);
    static int listener;
    const struct config_listen *at = &config.listen[0];
    require(http_listen((const struct sockaddr *)&at->address, at->address_bytes, at->text.p,
                        &listener, &err) == 0);
    socklen_t bytes = sizeof(address);
    require(getsockname(listener, (struct sockaddr *)&address, &bytes) == 0);
    const struct http_options http = {
        .listeners = &listener,
        .n_listeners = 1,
        .threads = 2,
        .workers = 2,
        .queue = 64,
        .connections = 100,
        .connections_per_address = 100,
        .header_us = config.timeouts_header,
        .idle_us = config.timeouts_idle,
        .body_us = config.timeouts_body,
        .metrics = metrics,
        .app = api_http_app(api_new(registry, &config, metrics)),
    };
    static struct http_server *server;
    require(http_start(&http, &server, &err) == 0);
}

/* Sends everything, then reads to the end. Returns the bytes that came back. */
static size_t exchange(const void *data, size_t size)
{
    auto_fd fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    require(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    const char *at = data;
    while (size > 0) {
        ssize_t n = send(fd, at, size, MSG_NOSIGNAL);
        if (n <= 0)
            break; /* refused and closed */
        at += n;
        size -= (size_t)n;
    }
    /* Bytes and the end apart: together, the server needs its next sweep to see the end. */
    (void)poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, APART_MS);
    (void)shutdown(fd, SHUT_WR);
    size_t received = 0;
    for (;;) {
        char answer[4096];
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        require(poll(&ready, 1, PATIENCE_MS) == 1); /* it neither answers nor closes */
        ssize_t n = read(fd, answer, sizeof(answer));
        if (n <= 0)
            return received;
        received += (size_t)n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool started;
    static unsigned inputs;
    static const char ping[] = "GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    if (!started)
        start();
    started = true;
    (void)exchange(data, size);
    if (++inputs % 64 == 0)
        require(exchange(ping, sizeof(ping) - 1) > 0);
    return 0;
}
