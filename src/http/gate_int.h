/* http, inside: sockets that linger, between gate.c and linger.c.
 *
 * Closing a socket while the client still sends makes the kernel answer with a reset, which may
 * destroy the answer before the client has read it. So the socket is kept for a while, only to
 * throw away what comes. RFC 9112, section 9.6. */
#ifndef HOLDFAST_HTTP_GATE_INT_H
#define HOLDFAST_HTTP_GATE_INT_H

#include "http/http_int.h"

#include <poll.h>

#define LINGER_MAX 128 /* sockets; more are closed at once */

struct lingerer {
    struct lingerer *next;
    int fd; /* owned */
    struct mono_us began;
    struct mono_us heard; /* when it last sent something */
    uint64_t bytes;
};

/* Of the gate's thread. */
struct lingering {
    struct lingerer *sockets[LINGER_MAX]; /* owned */
    size_t n;
    char *scratch; /* owned; for bytes that nobody looks at */
};

/* Takes over what linger_add left. */
void linger_take(struct http_server *server, struct lingering *lingering);
/* Fills `polled` with all sockets. Returns their number. */
size_t linger_polled(const struct lingering *lingering, struct pollfd *polled);
/* `polled`: as linger_polled filled it, and poll(2) then. */
void linger_read(struct lingering *lingering, const struct pollfd *polled);
void linger_done(struct lingering *lingering);

#endif
