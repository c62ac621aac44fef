/* The gate: one thread that accepts connections, within the limits, and hands them to the library's
 * event threads; that cuts off those who are over their time; and that lets the sockets of refused
 * uploads run dry.
 *
 * The library could accept by itself. It is not asked to, since it divides the limit of connections
 * by its threads, wakes all of them for each connection, and stops accepting
 * (MHD_quiesce_daemon of 0.9.75) in a way that races with its threads. */
#include "http/gate_int.h"
#include "http/http_int.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>

/* Connections accepted from one listener before the others get their turn. */
#define ACCEPT_BATCH 64
/* Pause after the system had no descriptor or memory for a connection. */
#define ACCEPT_PAUSE_US (CLOCK_SECOND_US / 10)
#define ACCEPT_LOG_US (10 * CLOCK_SECOND_US)

struct gate {
    struct http_server *server;
    int64_t tick_us; /* between two looks at the connections */
    struct mono_us swept;
    struct mono_us accept_again; /* not before; after a shortage */
    struct mono_us complained;
    struct lingering lingering;
};

/* The number of connections that may still come; at 0 the gate is woken when one closes. */
static unsigned room(struct http_server *server)
{
    auto_lock held = lock_take(&server->lock);
    unsigned limit = server->options.connections;
    unsigned there = server->n_connections + server->n_arriving;
    unsigned left = there < limit ? limit - there : 0;
    server->full = left == 0;
    return left;
}

static void count_arriving(struct http_server *server, int change)
{
    auto_lock held = lock_take(&server->lock);
    if (change > 0)
        server->n_arriving++;
    else if (server->n_arriving > 0)
        server->n_arriving--;
}

static void complain(struct gate *gate, int number)
{
    gate->accept_again = (struct mono_us){clock_mono().us + ACCEPT_PAUSE_US};
    if (gate->complained.us != 0 && clock_since_us(gate->complained) < ACCEPT_LOG_US)
        return;
    gate->complained = clock_mono();
    log_say(LOG_LEVEL_WARN, "could not accept a connection", LOG_Z("why", strerrordesc_np(number)));
}

/* Returns the number accepted. */
static unsigned accept_from(struct gate *gate, int listener, unsigned max)
{
    unsigned n = 0;
    while (n < max && n < ACCEPT_BATCH) {
        struct sockaddr_storage address = {0};
        socklen_t bytes = sizeof(address);
        int fd =
            accept4(listener, (struct sockaddr *)&address, &bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                complain(gate, errno);
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            break; /* EAGAIN; other errors are of a connection that is gone again */
        }
        n++;
        count_arriving(gate->server, 1);
        /* Closes the socket when it refuses: too many from one address. */
        if (MHD_add_connection(gate->server->daemon, fd, (struct sockaddr *)&address, bytes) ==
            MHD_NO)
            count_arriving(gate->server, -1);
    }
    return n;
}

static void close_listeners(struct http_server *server)
{
    for (size_t i = 0; i < server->n_listeners; i++)
        fd_close_auto(&server->listeners[i]);
    server->n_listeners = 0;
}

static int poll_timeout_ms(struct gate *gate)
{
    struct http_server *server = gate->server;
    if (gate->accept_again.us != 0)
        return ACCEPT_PAUSE_US / 1000;
    bool any = gate->lingering.n > 0;
    if (!any) {
        auto_lock held = lock_take(&server->lock);
        any = server->n_connections > 0;
    }
    return any ? (int)(gate->tick_us / 1000) : -1;
}

static bool may_accept(struct gate *gate)
{
    if (gate->accept_again.us != 0 && clock_mono().us < gate->accept_again.us)
        return false;
    gate->accept_again.us = 0;
    return room(gate->server) > 0;
}

/* One round: waits until something happens, and does it. */
static void turn(struct gate *gate, struct pollfd *polled)
{
    struct http_server *server = gate->server;
    if (atomic_load(&server->draining))
        close_listeners(server);
    size_t n = 0;
    polled[n++] = (struct pollfd){.fd = server->wake, .events = POLLIN};
    size_t n_listeners = may_accept(gate) ? server->n_listeners : 0;
    for (size_t i = 0; i < n_listeners; i++)
        polled[n++] = (struct pollfd){.fd = server->listeners[i], .events = POLLIN};
    n += linger_polled(&gate->lingering, polled + n);

    if (poll(polled, n, poll_timeout_ms(gate)) < 0)
        return; /* EINTR: signals are somebody else's business */
    if ((polled[0].revents & POLLIN) != 0) {
        uint64_t count;
        (void)!read(server->wake, &count, sizeof(count));
    }
    unsigned left = n_listeners > 0 ? room(server) : 0;
    for (size_t i = 0; i < n_listeners && left > 0; i++)
        if (polled[1 + i].revents != 0)
            left -= accept_from(gate, server->listeners[i], left);
    linger_read(&gate->lingering, polled + 1 + n_listeners);
    linger_take(server, &gate->lingering);
    if (clock_since_us(gate->swept) >= gate->tick_us) {
        sweep(server);
        gate->swept = clock_mono();
    }
}

static int64_t smallest(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void *run(void *arg)
{
    struct http_server *server = arg;
    const struct http_options *options = &server->options;
    int64_t tick = smallest(options->header_us, smallest(options->idle_us, options->body_us)) / 8;
    if (tick < CLOCK_SECOND_US / 50)
        tick = CLOCK_SECOND_US / 50;
    struct gate gate = {.server = server, .tick_us = smallest(tick, CLOCK_SECOND_US)};

    auto_mem struct pollfd *polled =
        mem_zalloc((1 + server->n_listeners + LINGER_MAX) * sizeof(*polled));
    while (!atomic_load(&server->gate_stops))
        turn(&gate, polled);
    close_listeners(server);
    linger_take(server, &gate.lingering);
    linger_done(&gate.lingering);
    return NULL;
}

int gate_start(struct http_server *server, struct err *err)
{
    int number = pthread_create(&server->gate, NULL, run, server);
    if (number != 0)
        return err_set(err, ERR_IO, "cannot start the thread that accepts connections: %s",
                       strerrordesc_np(number));
    (void)pthread_setname_np(server->gate, "http-gate");
    return 0;
}

void gate_stop(struct http_server *server)
{
    atomic_store(&server->gate_stops, true);
    server_wake(server);
    require(pthread_join(server->gate, NULL) == 0);
}
