#include "http/gate_int.h"

#include <errno.h>
#include <fcntl.h>

#define LINGER_US (15 * CLOCK_SECOND_US)
#define LINGER_QUIET_US (2 * CLOCK_SECOND_US)
#define LINGER_BYTES (UINT64_C(1) << 30)
/* Read from one socket before the others get their turn. */
#define LINGER_BATCH_BYTES ((size_t)4 << 20)
#define LINGER_SCRATCH_BYTES ((size_t)64 * 1024)

void linger_add(struct http_server *server, int fd)
{
    if (server->n_lingering >= LINGER_MAX)
        return;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0)
        return;
    (void)shutdown(copy, SHUT_WR); /* the library has done so, but not under TLS */
    struct lingerer *linger = mem_zalloc(sizeof(*linger));
    linger->fd = copy;
    linger->next = server->arrived;
    server->arrived = linger;
    server->n_lingering++;
}

void linger_take(struct http_server *server, struct lingering *lingering)
{
    auto_lock held = lock_take(&server->lock);
    while (server->arrived != NULL && lingering->n < LINGER_MAX) {
        struct lingerer *linger = server->arrived;
        server->arrived = linger->next;
        linger->began = clock_mono();
        linger->heard = linger->began;
        lingering->sockets[lingering->n++] = linger;
    }
    /* Counted here, where both kinds are known: those that wait and those that are taken. */
    server->n_lingering = (unsigned)lingering->n;
    for (const struct lingerer *more = server->arrived; more != NULL; more = more->next)
        server->n_lingering++;
}

size_t linger_polled(const struct lingering *lingering, struct pollfd *polled)
{
    for (size_t i = 0; i < lingering->n; i++)
        polled[i] = (struct pollfd){.fd = lingering->sockets[i]->fd, .events = POLLIN};
    return lingering->n;
}

static void close_linger(struct lingerer *linger)
{
    (void)close(linger->fd);
    free(linger);
}

/* Throws away what came. False when the client is gone, or was given enough. */
static bool read_on(struct lingerer *linger, bool readable, char *scratch)
{
    struct mono_us now = clock_mono();
    if (now.us - linger->began.us > LINGER_US || now.us - linger->heard.us > LINGER_QUIET_US)
        return false;
    size_t batch = 0;
    while (readable && batch < LINGER_BATCH_BYTES) {
        ssize_t n = recv(linger->fd, scratch, LINGER_SCRATCH_BYTES, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n <= 0)
            return false;
        batch += (size_t)n;
    }
    if (batch > 0)
        linger->heard = now;
    linger->bytes += batch;
    return linger->bytes <= LINGER_BYTES;
}

void linger_read(struct lingering *lingering, const struct pollfd *polled)
{
    if (lingering->n > 0 && lingering->scratch == NULL)
        lingering->scratch = mem_alloc(LINGER_SCRATCH_BYTES);
    size_t kept = 0;
    for (size_t i = 0; i < lingering->n; i++) {
        if (read_on(lingering->sockets[i], polled[i].revents != 0, lingering->scratch))
            lingering->sockets[kept++] = lingering->sockets[i];
        else
            close_linger(lingering->sockets[i]);
    }
    lingering->n = kept;
}

void linger_done(struct lingering *lingering)
{
    for (size_t i = 0; i < lingering->n; i++)
        close_linger(lingering->sockets[i]);
    lingering->n = 0;
    free(TAKE(lingering->scratch));
}

void linger_drop(struct http_server *server)
{
    while (server->arrived != NULL) {
        struct lingerer *linger = server->arrived;
        server->arrived = linger->next;
        close_linger(linger);
    }
}
