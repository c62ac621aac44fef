/* A small HTTP server for tests: a thread for each connection, answers by a function of the test,
 * which may send what no decent server would. */
#ifndef HOLDFAST_TEST_SERVER_H
#define HOLDFAST_TEST_SERVER_H

#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define TEST(f) cmocka_unit_test(f)

struct test_server;

struct test_exchange {
    struct str method;
    struct str target;
    struct str head; /* from the request line to the empty line */
    struct str body;
    unsigned number;     /* of requests to this server, from 1 */
    unsigned connection; /* from 1 */
    unsigned nth;        /* of the requests on this connection, from 1 */
    struct test_connection *on;
};

/* Answers; false closes the connection. Runs on many threads. */
typedef bool test_answer(void *context, struct test_exchange *x);

/* `certificate` and `key`: PEM files for TLS, or NULL. Listens on 127.0.0.1. */
struct test_server *test_server_start(test_answer *answer, void *context, const char *certificate,
                                      const char *key);
void test_server_stop(struct test_server *server);
/* "http://127.0.0.1:PORT", borrowed from the server */
const char *test_server_url(const struct test_server *server);
unsigned test_server_port(const struct test_server *server);
unsigned test_server_requests(struct test_server *server);
unsigned test_server_connections(struct test_server *server);

/* False: the client is gone. */
bool test_send(struct test_exchange *x, const void *p, size_t n);
bool test_say(struct test_exchange *x, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* An answer with Content-Length; `headers` is empty or whole lines. */
bool test_reply(struct test_exchange *x, const char *status, const char *headers, struct str body);
/* Of the request; p NULL when absent. */
struct str test_header(const struct test_exchange *x, const char *name);
void test_sleep_us(int64_t us);
/* Runs a program with its output discarded; 0 when it says so. */
int test_run(const char *const *argv);
/* A folder of this test's own, removed at its end. static */
const char *test_folder(void);
void test_write_file(const char *path, struct str content);

#endif
