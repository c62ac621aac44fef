/* For the tests of this room: a small application, and a client that can send any bytes. */
#ifndef HOLDFAST_HTTP_TEST_SUPPORT_H
#define HOLDFAST_HTTP_TEST_SUPPORT_H

#include "http/http.h"

#include <gnutls/gnutls.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <cmocka.h>

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
 * Every answer has X-Test. */
struct test_app {
    struct http_app app;
    int file; /* borrowed; of /file */
    atomic_uint begun;
    atomic_uint done;
    atomic_uint complete;
    atomic_uint refused;   /* refuse was called */
    atomic_uint certified; /* requests with a proven certificate */
    atomic_uint running;   /* in `end`, on a worker */
};

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
/* Also checks that every exchange that began was ended once. Returns http_stop's number. */
size_t test_stop(struct test_server *server, int64_t limit_us);

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
