/* The object store under the tests of this room. Two files have it, and each test is built with
 * both: test_s3_memory.c is s3.h in memory, and fails where it is told to; test_s3_real.c asks a
 * server that the environment names. */
#ifndef HOLDFAST_TEST_S3_INT_H
#define HOLDFAST_TEST_S3_INT_H

#include "s3/s3.h"

/* A bucket, or a place in one, that nobody else uses; NULL: there is no server. owned */
struct s3 *test_s3_open(const char *place);

#define TEST_S3_CALLS_MAX 512

/* What the one in memory was asked since test_s3_reset, and what it shall do. */
struct test_s3_record {
    bool in_memory;
    const char *calls[TEST_S3_CALLS_MAX]; /* "put", "multipart_begin" …: static */
    size_t n;
    size_t hashed;  /* puts without a hash that was known */
    size_t fail_at; /* the call of this number (from 1) fails; 0: none */
    bool fail_on;   /* and all after it */
    bool done;      /* it is done all the same, and the answer is lost */
    enum err_kind fail_with;
    struct mono_us give_up;
};
extern struct test_s3_record test_s3_record;
void test_s3_reset(void);

#endif
