/* Deadlines. The library's own time-out starts again with every byte, so that a client who sends
 * one byte a second is never too late. Here a stage has a deadline that bytes do not move; only
 * bodies and answers may go on for longer, as long as they make progress. */
#include "http/http_int.h"

#include <linux/tcp.h>
#include <netinet/in.h>

/* When no connection is left for others, an idle one is kept no longer than this. */
#define IDLE_WHEN_FULL_US CLOCK_SECOND_US

/* Bytes of the connection's life that arrived, or that the client has acknowledged. */
static bool bytes_moved(int fd, enum stage stage, uint64_t *ret)
{
    struct tcp_info info = {0};
    socklen_t n = sizeof(info);
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n) < 0 ||
        n < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof(info.tcpi_bytes_received))
        return false; /* not TCP */
    *ret = stage == STAGE_BODY ? info.tcpi_bytes_received : info.tcpi_bytes_acked;
    return true;
}

static int64_t patience_us(const struct http_server *server, enum stage stage)
{
    const struct http_options *options = &server->options;
    switch (stage) {
    case STAGE_OPEN:
    case STAGE_HEAD:
        return options->header_us;
    case STAGE_IDLE:
        return server->full && options->idle_us > IDLE_WHEN_FULL_US ? IDLE_WHEN_FULL_US
                                                                    : options->idle_us;
    case STAGE_BODY:
    case STAGE_ANSWER:
        return options->body_us;
    case STAGE_WORK:
        break;
    }
    return INT64_MAX;
}

/* Whether enough moved since the last time. Then the next period begins. */
static bool makes_progress(struct http_connection *connection, enum stage stage)
{
    uint64_t moved = 0;
    if (!bytes_moved(connection->fd, stage, &moved))
        return true;
    bool enough = !connection->measured || moved - connection->moved >= HTTP_PROGRESS_BYTES;
    connection->measured = true;
    connection->moved = moved;
    return enough;
}

static bool reads(enum stage stage)
{
    return stage == STAGE_OPEN || stage == STAGE_HEAD || stage == STAGE_BODY || stage == STAGE_IDLE;
}

/* All that the client sent is read, and it will send no more. */
static bool is_at_end(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void look_at(struct http_server *server, struct http_connection *connection,
                    struct mono_us now)
{
    unsigned value = atomic_load_explicit(&connection->stage, memory_order_relaxed);
    enum stage stage = stage_of(value);
    bool flows = stage == STAGE_BODY || stage == STAGE_ANSWER;
    if (value != connection->seen) {
        /* The head's time runs from the connection's first moment, not from the request line. */
        bool same_head = stage_of(connection->seen) == STAGE_OPEN && stage == STAGE_HEAD &&
                         (value >> STAGE_BITS) - (connection->seen >> STAGE_BITS) == 1;
        connection->seen = value;
        if (!same_head) {
            connection->since = now;
            connection->measured = false;
        }
        return;
    }
    /* When bytes and the end arrive together, the library (0.9.75, edge-triggered epoll) reads the
     * bytes and waits for an event that has been: this makes another one. */
    if (reads(stage) && is_at_end(connection->fd)) {
        (void)shutdown(connection->fd, SHUT_RD);
        return;
    }
    if (flows && !connection->measured) {
        connection->measured = bytes_moved(connection->fd, stage, &connection->moved);
        return;
    }
    if (now.us - connection->since.us <= patience_us(server, stage))
        return;
    if (flows && makes_progress(connection, stage)) {
        connection->since = now;
        return;
    }
    /* The library sees the end and closes. */
    (void)shutdown(connection->fd, SHUT_RDWR);
}

void sweep(struct http_server *server)
{
    struct mono_us now = clock_mono();
    auto_lock held = lock_take(&server->lock);
    if (server->n_arriving == server->n_arriving_seen) /* the library gave these up unannounced */
        server->n_arriving = 0;
    server->n_arriving_seen = server->n_arriving;
    for (struct http_connection *c = server->connections; c != NULL; c = c->next)
        look_at(server, c, now);
}
