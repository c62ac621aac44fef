/* A network that fails: stands between libpq and the server, counts round trips, and cuts, holds or
 * refuses when it is told to. One thread; connections beyond PAIRS_MAX are refused. */
#ifndef HOLDFAST_DB_TEST_DB_PROXY_H
#define HOLDFAST_DB_TEST_DB_PROXY_H

#include "db/test_db.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#define PAIRS_MAX 48

enum proxy_mode {
    PROXY_PASS,
    PROXY_REFUSE,           /* new connections end at once */
    PROXY_HOLD,             /* nothing moves, nothing ends: a cut cable */
    PROXY_CUT_AT_COMMIT,    /* when a client says COMMIT: it does not arrive, the connection ends */
    PROXY_CUT_AFTER_COMMIT, /* it arrives, the answer does not */
    PROXY_AGE,              /* the server says that it is of version 12 */
};

struct proxy_pair {
    int client; /* -1: free */
    int server;
    bool asks; /* the client spoke last */
    bool cut;  /* what the server says next ends it */
};

struct proxy {
    pthread_t thread;
    int listener;
    int port;
    int server_port;
    _Atomic enum proxy_mode mode;
    atomic_int rounds; /* how often a client spoke after its server had; not the first one */
    atomic_bool drop;  /* end all connections */
    atomic_bool stop;
    struct proxy_pair pairs[PAIRS_MAX];
    char bytes[65536];
};

static inline int proxy_socket(int port, bool connects)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int result = connects ? connect(fd, (struct sockaddr *)&address, sizeof(address))
                          : bind(fd, (struct sockaddr *)&address, sizeof(address));
    if (result == 0)
        return fd;
    (void)close(fd);
    return -1;
}

static inline void proxy_end(struct proxy_pair *pair)
{
    (void)close(pair->client);
    (void)close(pair->server);
    *pair = (struct proxy_pair){.client = -1, .server = -1};
}

static inline void proxy_accept(struct proxy *proxy)
{
    int client = accept4(proxy->listener, NULL, NULL, SOCK_CLOEXEC);
    size_t i = 0;
    while (i < PAIRS_MAX && proxy->pairs[i].client >= 0)
        i++;
    int server = i < PAIRS_MAX && proxy->mode != PROXY_REFUSE
                     ? proxy_socket(proxy->server_port, /* connects= */ true)
                     : -1;
    if (server < 0)
        (void)close(client);
    else
        proxy->pairs[i] = (struct proxy_pair){.client = client, .server = server};
}

/* Moves what has come. */
static inline void proxy_move(struct proxy *proxy, struct proxy_pair *pair, bool from_client)
{
    char *bytes = proxy->bytes;
    ssize_t n = recv(from_client ? pair->client : pair->server, bytes, sizeof(proxy->bytes), 0);
    if (n <= 0 || (pair->cut && !from_client)) {
        proxy_end(pair);
        return;
    }
    if (from_client) {
        bool commits = memmem(bytes, (size_t)n, "COMMIT", 6) != NULL;
        if (commits && proxy->mode == PROXY_CUT_AT_COMMIT) {
            proxy_end(pair);
            return;
        }
        pair->cut = commits && proxy->mode == PROXY_CUT_AFTER_COMMIT;
        atomic_fetch_add(&proxy->rounds, pair->asks || pair == proxy->pairs ? 0 : 1);
    } else if (proxy->mode == PROXY_AGE) {
        char *at = memmem(bytes, (size_t)n, "server_version", sizeof("server_version"));
        if (at != NULL)
            memcpy(at + sizeof("server_version"), "12", 2);
    }
    pair->asks = from_client;
    for (ssize_t at = 0; at < n;) {
        ssize_t sent = send(from_client ? pair->server : pair->client, bytes + at, (size_t)(n - at),
                            MSG_NOSIGNAL);
        if (sent <= 0) {
            proxy_end(pair);
            return;
        }
        at += sent;
    }
}

static inline void *proxy_run(void *context)
{
    struct proxy *proxy = context;
    while (!proxy->stop) {
        struct pollfd fds[1 + 2 * PAIRS_MAX];
        bool hold = proxy->mode == PROXY_HOLD;
        fds[0] = (struct pollfd){.fd = hold ? -1 : proxy->listener, .events = POLLIN};
        for (size_t i = 0; i < PAIRS_MAX; i++) {
            struct proxy_pair *pair = &proxy->pairs[i];
            if (proxy->drop && pair->client >= 0)
                proxy_end(pair);
            fds[1 + 2 * i] = (struct pollfd){.fd = hold ? -1 : pair->client, .events = POLLIN};
            fds[2 + 2 * i] = (struct pollfd){.fd = hold ? -1 : pair->server, .events = POLLIN};
        }
        proxy->drop = false;
        (void)poll(fds, ARRAY_SIZE(fds), 10);
        if (fds[0].revents != 0)
            proxy_accept(proxy);
        for (size_t i = 0; i < PAIRS_MAX; i++) {
            if (fds[1 + 2 * i].revents != 0)
                proxy_move(proxy, &proxy->pairs[i], /* from_client= */ true);
            if (fds[2 + 2 * i].revents != 0 && proxy->pairs[i].client == fds[1 + 2 * i].fd)
                proxy_move(proxy, &proxy->pairs[i], /* from_client= */ false);
        }
    }
    for (size_t i = 0; i < PAIRS_MAX; i++)
        if (proxy->pairs[i].client >= 0)
            proxy_end(&proxy->pairs[i]);
    return NULL;
}

static inline void proxy_start(struct proxy *proxy, int server_port)
{
    *proxy = (struct proxy){.server_port = server_port};
    for (size_t i = 0; i < PAIRS_MAX; i++)
        proxy->pairs[i] = (struct proxy_pair){.client = -1, .server = -1};
    proxy->listener = proxy_socket(0, /* connects= */ false);
    assert_true(proxy->listener >= 0);
    assert_int_equal(listen(proxy->listener, 64), 0);
    struct sockaddr_in address;
    socklen_t size = sizeof(address);
    assert_int_equal(getsockname(proxy->listener, (struct sockaddr *)&address, &size), 0);
    proxy->port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&proxy->thread, NULL, proxy_run, proxy), 0);
}

static inline void proxy_stop(struct proxy *proxy)
{
    proxy->stop = true;
    assert_int_equal(pthread_join(proxy->thread, NULL), 0);
    (void)close(proxy->listener);
}

#endif
