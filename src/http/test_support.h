/* For the tests of this room: a small application, and a client that can send any bytes. */
#ifndef HOLDFAST_HTTP_TEST_SUPPORT_H
#define HOLDFAST_HTTP_TEST_SUPPORT_H

#include "http/http.h"

#include <gnutls/gnutls.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <cmocka.h>

/* What the callbacks of /far wait in until the test says go. */
enum hold { HOLD_NONE, HOLD_START, HOLD_BODY, HOLD_END };

/* Paths of the application:
 *   /hello                 "hello\n"
 *   /target                what arrived: method, path, query
 *   /header?name=N         http_header and http_header_all
 *   /origin, /trusted      http_origin
 *   /echo                  the body
 *   /length                number of bytes in the body
 *   /wait?ms=N             like /length, on a worker, after N ms
 *   /file?offset=N&size=N  from the application's file
 *   /size                  `size` bytes for HEAD
 *   /empty, /same          204 and 304
 *   /refuse                401 from begin
 *   /refuse-body           413 from the first piece of the body
 *   /wait-refused          401 from begin, with waits set
 *   /refuse-start          401 from start
 *   /far                   all on a worker: "BYTES FNV-1a" of the body. ms=N: `end` takes so long;
 *                          block_us=N: so does each block; hold=start|body|end: until test_release;
 *                          refuse=start|body|end; after=N: the N-th block is held or refused
 *   /stream?size=N         N bytes of the file's pattern; far=1: the answer is made on a worker
 *                          us=N: a piece comes every N us; piece=N: bytes of one; ends=N, fails=N:
 *                          after so many bytes; makes=N: then it is silent; reads=N: one read
 *                          gives no more
 * Every answer has X-Test. */
struct test_app {
    struct http_app app;
    int file; /* borrowed; of /file */
    atomic_uint begun;
    atomic_uint done;
    atomic_uint complete;
    atomic_uint refused;   /* refuse was called */
    atomic_uint certified; /* requests with a proven certificate */
    atomic_uint running;   /* in a callback, on a worker */
    atomic_uint wrong;     /* a promise of http.h was broken: order, thread, size of pieces */
    atomic_uint streams;   /* open */
    atomic_uint streamed;  /* reads of streams */
    atomic_size_t taken;   /* bytes given to `body` */
    atomic_uint held;      /* callbacks that wait for test_release */
    pthread_mutex_t mutex;
    pthread_cond_t released;
    bool open; /* under the mutex: nothing is held any more */
};

void test_app_init(struct test_app *app);
/* Also checks that no promise was broken, and that every exchange and stream ended once. */
void test_app_done(struct test_app *app);
/* Lets go what is held, and what would be. */
void test_release(struct test_app *app);
/* Waits until the counter has the value; fails the test after 20 s. */
void test_await(const char *what, atomic_uint *counter, unsigned value);
/* The pattern of the file and of streams. */
unsigned char test_byte(uint64_t at);
/* Writes what /far answers to a body of these bytes. */
void test_digest(const void *bytes, size_t n, char text[64]);

struct test_server {
    struct test_app app;
    struct metrics *metrics;
    struct http_options options;
    struct http_server *server; /* NULL after test_stop */
    uint16_t port;
};

/* Options with patience for slow machines; change some, then start. Fails the test on an error. */
void test_prepare(struct test_server *server);
void test_start(struct test_server *server);
/* Also checks what can be checked in the end. Returns http_stop's number. */
size_t test_stop(struct test_server *server, int64_t limit_us);
/* The same while the test goes on; test_stop_join returns. */
struct test_stopping {
    struct test_server *server;
    int64_t limit_us;
    pthread_t thread;
    size_t cut;
    int64_t took_us;
    atomic_bool stopped;
};
void test_stop_begin(struct test_server *server, int64_t limit_us, struct test_stopping *ret);
void test_stop_join(struct test_stopping *stopping);

struct client {
    int fd;
    gnutls_session_t session; /* owned; NULL: plain */
    gnutls_certificate_credentials_t credentials;
    char *received; /* owned: bytes read and not yet given out */
    size_t n_received;
};

struct client client_open(const struct test_server *server);
/* False when nobody listens. */
bool client_try(const struct test_server *server, struct client *ret);
void client_close(struct client *client);
/* False when the connection broke. */
bool client_send(struct client *client, const void *bytes, size_t n);
bool client_say(struct client *client, const char *text);
bool client_printf(struct client *client, const char *fmt, ...) PRINTF_LIKE(2, 3);

struct answer {
    unsigned status; /* 0: the connection ended before there was an answer */
    char *head;      /* owned, NUL-ended */
    char *body;      /* owned, NUL-ended */
    size_t body_bytes;
    bool cut; /* the connection ended within the answer */
};

/* Reads one answer. `to_head`: it is to a HEAD request. Fails the test when it takes over 20 s. */
struct answer client_answer(struct client *client, bool to_head);
void answer_free(struct answer *answer);
/* Sends the request, checks the status and frees the answer. */
void client_expect(struct client *client, const char *request, unsigned status);
/* The header's value in the answer's head, or NULL. static, overwritten by the next call of the
 * thread. */
const char *answer_header(const struct answer *answer, const char *name);
/* True when the server ends the connection within the time. Bytes before that are dropped. */
bool client_ended(struct client *client, int64_t within_us);

/* Runs a program to its end; its output goes to the file. Returns its exit code; -1: it cannot be
 * run. */
int test_run(const char *output_file, const char *const *argv);
/* static: a folder for the files of this program, removed at its end. */
const char *test_folder(void);
/* Writes bytes that repeat with a period that no power of two divides. Returns the descriptor. */
int test_file(const char *name, size_t bytes);
void test_sleep_us(int64_t us);

#endif
