/* One piece of work done for somebody: a request, or a command. Rooms that act for someone take it
 * first; it carries the memory, the failure and the patience of the work. One thread at a time. */
#ifndef HOLDFAST_BASE_CALL_H
#define HOLDFAST_BASE_CALL_H

#include "base/arena.h"
#include "base/clock.h"
#include "base/err.h"

#define CALL_ID_BYTES 17

struct db_conn;

struct call {
    struct arena arena;
    struct err err;
    char id[CALL_ID_BYTES]; /* 16 hexadecimal digits: in the log and in the answer's X-Request-Id */
    struct db_conn *db;     /* borrowed while a registry verb runs; NULL outside of one */
};

/* Gives the call its random id. The rest of a zeroed call is ready to use. */
void call_init(struct call *call);
void call_done(struct call *call);

#define auto_call __attribute__((cleanup(call_done))) struct call

#endif
