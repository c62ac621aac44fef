/* s3.h as it is, for the server that HOLDFAST_TEST_S3 names. */
#include "blob/test_s3_int.h"

#include <stdio.h>

struct test_s3_record test_s3_record;

void test_s3_reset(void)
{
    test_s3_record = (struct test_s3_record){0};
}

struct s3 *test_s3_open(const char *place)
{
    const char *endpoint = getenv("HOLDFAST_TEST_S3");
    if (endpoint == NULL)
        return NULL;
    const char *bucket = getenv("HOLDFAST_TEST_S3_BUCKET");
    require(bucket != NULL);
    char prefix[80];
    (void)snprintf(prefix, sizeof(prefix), "%s-%d/", place, (int)getpid());
    const struct s3_options options = {
        .bucket = bucket,
        .prefix = prefix,
        .endpoint = endpoint,
        .region = "us-east-1",
        .ca_file = "",
        .access_key = "",
        .secret_key = "",
        .encryption = "",
        .encryption_key = "",
        .public_url = "",
        .patience_us = 60 * CLOCK_SECOND_US,
        .connections = 8,
    };
    struct s3 *s3 = NULL;
    struct err err;
    if (s3_new(&options, &s3, &err) < 0) {
        log_err(LOG_LEVEL_ERROR, "no object store", &err);
        require(false); /* the options are right */
    }
    return s3;
}
