/* http, inside: what its files share.
 *
 * Threads of a server: one `gate` (accepts, watches deadlines, lets refused uploads run dry), the
 * library's event threads, and the workers. A connection belongs to the event thread that the
 * library gave it to; an exchange belongs to that thread too, or to a worker between
 * workers_push() and MHD_resume_connection(). Meanwhile the connection is suspended: the library
 * neither reads from it, so that TCP holds the sender back, nor closes it. */
#ifndef HOLDFAST_HTTP_INT_H
#define HOLDFAST_HTTP_INT_H

#include "http/http.h"

#include <gnutls/gnutls.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

/* The head of a request. The library answers 431 or 414 by itself only when its memory for the
 * connection is full, which is later than these. */
#define HTTP_HEAD_BYTES_MAX (32 * 1024)
#define HTTP_TARGET_BYTES_MAX (16 * 1024)

/* A refused body is read and thrown away up to here, so that the connection can be kept. */
#define HTTP_DRAIN_BYTES (UINT64_C(16) << 20)
#define HTTP_DRAIN_US (5 * CLOCK_SECOND_US)

/* Least progress that a body or an answer must make within http_options.body_us. */
#define HTTP_PROGRESS_BYTES 4096

/* ---- Stages: what a connection is doing, for those who watch it from another thread ---- */

enum stage {
    STAGE_OPEN, /* accepted; no request line yet (for TLS also the handshake) */
    STAGE_HEAD, /* the request line is there */
    STAGE_BODY,
    STAGE_WORK, /* suspended: waits for a worker, for its work, or for the source of a stream */
    STAGE_ANSWER,
    STAGE_IDLE, /* answered; may send the next request */
};
#define STAGE_BITS 3U
#define STAGE_MASK ((1U << STAGE_BITS) - 1U)

/* What is known of the source of a response's stream. */
enum source {
    SOURCE_QUIET,   /* nothing since the last read */
    SOURCE_TOLD,    /* there is more */
    SOURCE_AWAITED, /* the connection is suspended: who changes this resumes it */
};

struct http_connection {
    struct http_server *server;
    struct MHD_Connection *mhd; /* NULL once the library has freed what a request points into */
    int fd;                     /* the library's; open as long as this is in server's list */
    const struct sockaddr *peer;
    /* enum stage in the low bits, the number of changes above: a watcher that sees the same value
     * twice knows that nothing happened in between. Only the connection's thread writes it. */
    atomic_uint stage;
    atomic_uint source;                  /* enum source */
    struct http_exchange *exchange;      /* the one that is running */
    struct tls_credentials *credentials; /* reference; NULL without TLS */
    gnutls_session_t session;            /* the library's; NULL without TLS */
    bool certificate_checked;
    bool certified;
    bool lingers; /* the client may still be sending: read on for a while after the answer */

    /* Under server->lock. */
    struct http_connection *previous;
    struct http_connection *next;
    /* Of the gate alone. */
    unsigned seen;        /* value of `stage` at the last look */
    struct mono_us since; /* when that value was first seen */
    bool measured;        /* `moved` holds the bytes moved near `since` */
    uint64_t moved;
};

static inline enum stage stage_of(unsigned value)
{
    return (enum stage)(value & STAGE_MASK);
}
static inline enum stage stage_get(const struct http_connection *connection)
{
    return stage_of(atomic_load_explicit(&connection->stage, memory_order_relaxed));
}
static inline void stage_set(struct http_connection *connection, enum stage stage)
{
    unsigned old = atomic_load_explicit(&connection->stage, memory_order_relaxed);
    unsigned value = ((old & ~STAGE_MASK) + (1U << STAGE_BITS)) | (unsigned)stage;
    atomic_store_explicit(&connection->stage, value, memory_order_relaxed);
}
/* No request is running on it. */
static inline bool stage_is_free(enum stage stage)
{
    return stage == STAGE_OPEN || stage == STAGE_IDLE;
}

/* ---- Phases of an exchange (http_exchange.phase) ---- */

enum phase {
    PHASE_HEAD,  /* begin was not called yet */
    PHASE_BODY,  /* pieces go to the application */
    PHASE_DRAIN, /* refused: pieces are thrown away, the response stands */
    PHASE_WORK,  /* with a worker, or back from there */
    PHASE_SENT,
};

/* What a worker is to do with an exchange (http_exchange.work), in this order. */
enum {
    WORK_START = 1,
    WORK_BODY = 2, /* the block that was gathered */
    WORK_END = 4,
};

/* ---- The server ---- */

/* The queue is two lines, which are served in turn: a thousand uploads with a block each do not
 * keep a short request waiting for all of them. */
enum line {
    LINE_NEW,       /* has as many places as there are */
    LINE_UNDER_WAY, /* has begun and is never turned away; one place for each exchange at most */
    LINES,
};

struct workers {
    pthread_mutex_t mutex;
    pthread_cond_t work;
    struct {
        struct http_exchange *first; /* waiting, oldest first */
        struct http_exchange *last;
        unsigned taken; /* places that are reserved or filled */
    } lines[LINES];
    enum line turn;
    unsigned places;
    unsigned n_idle; /* threads that sleep, or wake up */
    bool waking;     /* one of them was woken and is not here yet */
    bool stopping;
    pthread_t *threads; /* owned */
    unsigned n_threads;
};

struct lingerer;

struct http_server {
    struct http_options options; /* its pointers are borrowed, but for the lists below */
    const struct http_app *app;
    struct MHD_Daemon *daemon; /* owned */
    int *listeners;            /* owned, with the sockets; of the gate once it runs */
    size_t n_listeners;
    struct tls *tls; /* owned; NULL without */
    struct workers workers;
    atomic_bool draining; /* no new connections, answers close theirs */
    atomic_bool ending;   /* no stream is waited for */

    pthread_t gate;
    int wake; /* owned: eventfd that makes the gate look around */
    atomic_bool gate_stops;

    /* Guards the list of connections, and with it their sockets: a socket in the list is open.
     * The gate asks sockets for their state and shuts them down while it holds this; neither
     * waits. */
    pthread_mutex_t lock;
    pthread_cond_t fewer; /* a connection closed */
    struct http_connection *connections;
    unsigned n_connections;
    unsigned n_arriving;      /* handed to the library and not announced by it yet */
    unsigned n_arriving_seen; /* at the last sweep */
    bool full;                /* the gate stopped accepting: wake it when one closes */
    struct lingerer *arrived; /* sockets handed to the gate to run dry */
    unsigned n_lingering;
};

/* server.c */
void server_wake(struct http_server *server);
void connection_notify(void *cls, struct MHD_Connection *mhd, void **context,
                       enum MHD_ConnectionNotificationCode code);

/* exchange.c: the library's three callbacks */
void *exchange_start(void *cls, const char *target, struct MHD_Connection *mhd);
enum MHD_Result exchange_step(void *cls, struct MHD_Connection *mhd, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_bytes, void **context);
void exchange_completed(void *cls, struct MHD_Connection *mhd, void **context,
                        enum MHD_RequestTerminationCode code);
/* Tells the application and frees it. */
void exchange_end(struct http_exchange *x, bool complete);
/* Of a worker: does x->work, or refuses to because the server stops. */
void exchange_work(struct http_exchange *x, bool stopping);

/* head.c: fills x from the head. Errors: INVALID, TOO_LARGE, UNSUPPORTED; x->response.status is
 * then the status that fits. */
int head_read(struct http_exchange *x, const char *url, const char *method, const char *version,
              struct err *err) MUST_CHECK;

/* origin.c */
/* What a proxy says; NULL where it says nothing that could be used. */
struct origin_said {
    const char *scheme; /* static */
    struct str host;    /* borrowed, or of the arena */
    struct str client;  /* the same */
};
/* Reads a Forwarded header. The first element only: the proxy nearest to the client wrote it. A
 * header that cannot be read to the end of that element says nothing. RFC 7239, section 4. */
struct origin_said origin_read_forwarded(struct arena *arena, struct str header);

/* answer.c */
/* Hands the response to the library. MHD_NO: the connection is to be closed. */
enum MHD_Result answer_send(struct http_exchange *x);
/* Writes the response to the socket past the library, which takes none while a body is coming.
 * False when the socket did not take all of it. The connection must be closed then or so. */
bool answer_write(struct http_exchange *x);
/* What a reader of the library returns when there will be no more, although the size was promised.
 * A reader that fails makes the library (0.9.75) forget the connection, unless it is just about to
 * write. So the socket is shut down, and writing this byte fails. */
ssize_t answer_break_off(struct http_connection *connection, char *buffer);

/* source.c: responses that are streams */
/* What the library gets its bytes from; `cls` is the exchange. */
ssize_t source_read(void *cls, uint64_t at, char *buffer, size_t max);
/* Begins to listen to the response's stream. */
void source_watch(struct http_exchange *x);
/* From here on no connection stays suspended for a stream; those that are go on. */
void source_stop(struct http_server *server);

/* workers.c */
int workers_start(struct workers *workers, unsigned threads, unsigned places,
                  struct err *err) MUST_CHECK;
/* Takes a place in the line; false when it is full or the pool is stopping. */
bool workers_reserve(struct workers *workers, enum line line);
/* Fills a reserved place. The connection is suspended; from here on the exchange is the worker's.
 */
void workers_push(struct workers *workers, enum line line, struct http_exchange *x);
/* What still waits is refused, what runs is waited for. Takes a pool that was not started. */
void workers_stop(struct workers *workers);

/* gate.c */
int gate_start(struct http_server *server, struct err *err) MUST_CHECK;
void gate_stop(struct http_server *server);

/* sweep.c and linger.c, of the gate's thread where nothing else is said */
/* Cuts off connections that are over their time. */
void sweep(struct http_server *server);
/* From the event threads, under server->lock: keeps the connection's socket open (by a duplicate)
 * until the client has stopped sending. */
void linger_add(struct http_server *server, int fd);
/* Closes what no gate has taken. */
void linger_drop(struct http_server *server);

/* tls.c */
/* Errors: INVALID, IO. ret: owned. */
int tls_new(const struct http_options *options, struct tls **ret, struct err *err) MUST_CHECK;
void tls_free(struct tls *tls);
int tls_reload(struct tls *tls, struct err *err) MUST_CHECK;
bool tls_changed(struct tls *tls);
/* static: what the library is started with. */
const char *tls_priorities(void);
/* Gives the session the current credentials. ret: a reference, for tls_unref. */
struct tls_credentials *tls_attach(struct tls *tls, gnutls_session_t session);
void tls_unref(struct tls_credentials *credentials);
/* The client proved a certificate that the configured CA signed. After the handshake. */
bool tls_certified(const struct tls_credentials *credentials, gnutls_session_t session);

#endif
