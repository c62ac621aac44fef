/* Where keys come from, against small services that check what they are asked: the requests and
 * answers are those of AWS's documentation. */
#include "s3/s3_int.h"
#include "test_server.h"

#include <signal.h>

#define MS INT64_C(1000)

/* ---- One server plays the store, STS, the container's and the instance's service ---- */

struct fake {
    struct test_server *server;
    int64_t lifetime_s; /* as the next, before there are requests */
    int64_t slow_us;
    pthread_mutex_t mutex; /* of what follows */
    unsigned obtained;     /* how often keys were given out; their access key is "KEY<n>" */
    bool fails;            /* 500 */
    bool refuses;          /* 400 */
    bool nonsense;         /* 200, without keys */
    unsigned expired;      /* so many requests to the store are told that their token is */
    unsigned imds_tokens;
    struct buf store_heads; /* of requests to the store */
    struct buf seen;        /* of all others, with their bodies */
};

static struct fake fake;

static const char *expiration(struct arena *arena)
{
    char stamp[CLOCK_TEXT_BYTES];
    clock_format((struct wall_us){clock_wall().us + fake.lifetime_s * CLOCK_SECOND_US}, stamp);
    return str_printf(arena, "%.19sZ", stamp).p;
}

static bool give_json(struct test_exchange *x)
{
    auto_arena arena = {0};
    return test_reply(
        x, "200 OK", "Content-Type: application/json\r\n",
        str_printf(&arena,
                   "{\"Code\":\"Success\",\"LastUpdated\":\"2012-04-26T16:39:16Z\","
                   "\"Type\":\"AWS-HMAC\",\"AccessKeyId\":\"KEY%u\",\"SecretAccessKey\":"
                   "\"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\",\"Token\":\"token+/%u==\","
                   "\"Expiration\":\"%s\"}",
                   fake.obtained, fake.obtained, expiration(&arena)));
}

static bool give_sts(struct test_exchange *x)
{
    auto_arena arena = {0};
    return test_reply(
        x, "200 OK", "Content-Type: text/xml\r\n",
        str_printf(
            &arena,
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/"
            "\"><AssumeRoleWithWebIdentityResult><SubjectFromWebIdentityToken>subject"
            "</SubjectFromWebIdentityToken><Audience>client</Audience><AssumedRoleUser><Arn>"
            "arn:aws:sts::123456789012:assumed-role/Role/app1</Arn><AssumedRoleId>A:app1"
            "</AssumedRoleId></AssumedRoleUser><Credentials><SessionToken>token+/%u=="
            "</SessionToken><SecretAccessKey>wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY"
            "</SecretAccessKey><Expiration>%s</Expiration><AccessKeyId>KEY%u</AccessKeyId>"
            "</Credentials><Provider>www.amazon.com</Provider></AssumeRoleWithWebIdentityResult>"
            "<ResponseMetadata><RequestId>ad4156e9-bce1-11e2-82e6-6b6efEXAMPLE</RequestId>"
            "</ResponseMetadata></AssumeRoleWithWebIdentityResponse>",
            fake.obtained, expiration(&arena), fake.obtained));
}

static bool answer_store(struct test_exchange *x)
{
    auto_lock held = lock_take(&fake.mutex);
    buf_done(&fake.store_heads);
    buf_add_str(&fake.store_heads, x->head);
    if (fake.expired == 0)
        return test_reply(x, "200 OK", "", STR(""));
    fake.expired--;
    return test_reply(x, "400 Bad Request", "",
                      STR("<Error><Code>ExpiredToken</Code><Message>The provided token has expired."
                          "</Message></Error>"));
}

static bool is(const struct test_exchange *x, const char *method, const char *target)
{
    return str_eq(x->method, str_from(method)) && str_eq(x->target, str_from(target));
}

static bool answer_instance(struct test_exchange *x)
{
    if (is(x, "PUT", "/latest/api/token")) {
        if (!str_eq(test_header(x, "X-aws-ec2-metadata-token-ttl-seconds"), STR("21600")))
            return test_reply(x, "400 Bad Request", "", STR(""));
        fake.imds_tokens++;
        return test_reply(x, "200 OK", "", STR("AQAEAEXAMPLE=="));
    }
    if (!str_eq(test_header(x, "X-aws-ec2-metadata-token"), STR("AQAEAEXAMPLE==")))
        return test_reply(x, "401 Unauthorized", "", STR(""));
    if (is(x, "GET", "/latest/meta-data/iam/security-credentials/"))
        return test_reply(x, "200 OK", "", STR("s3access"));
    if (!is(x, "GET", "/latest/meta-data/iam/security-credentials/s3access"))
        return test_reply(x, "404 Not Found", "", STR(""));
    fake.obtained++;
    return give_json(x);
}

static bool answer(void *context, struct test_exchange *x)
{
    (void)context;
    if (str_starts(x->target, STR("/bucket")))
        return answer_store(x);
    if (fake.slow_us > 0)
        test_sleep_us(fake.slow_us);
    auto_lock held = lock_take(&fake.mutex);
    buf_add_str(&fake.seen, x->head);
    buf_add_str(&fake.seen, x->body);
    if (fake.fails)
        return test_reply(x, "500 Internal Server Error", "", STR(""));
    if (fake.refuses)
        return test_reply(x, "400 Bad Request", "",
                          STR("<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken"
                              "</Code><Message>no</Message></Error></ErrorResponse>"));
    if (fake.nonsense)
        return test_reply(x, "200 OK", "", STR("{\"AccessKeyId\":\"KEY\",\"Token\":7}"));
    if (str_starts(x->target, STR("/latest/")))
        return answer_instance(x);
    fake.obtained++;
    return is(x, "POST", "/") ? give_sts(x) : give_json(x);
}

/* ---- The client ---- */

static const char *const variables[] = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_ENDPOINT_URL_STS",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
};

static int set_up(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(variables); i++)
        require(unsetenv(variables[i]) == 0);
    fake = (struct fake){
        .lifetime_s = 3600, .store_heads = BUF_INIT(1 << 20), .seen = BUF_INIT(1 << 20)};
    require(pthread_mutex_init(&fake.mutex, NULL) == 0);
    fake.server = test_server_start(answer, NULL, NULL, NULL);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_server_stop(fake.server);
    buf_done(&fake.store_heads);
    buf_done(&fake.seen);
    require(pthread_mutex_destroy(&fake.mutex) == 0);
    return 0;
}

#define tell(field, value)                        \
    do {                                          \
        auto_lock held_ = lock_take(&fake.mutex); \
        fake.field = (value);                     \
    } while (0)

static void set(const char *name, const char *value)
{
    require(setenv(name, value, 1) == 0);
}

static void set_url(const char *name, const char *path)
{
    char url[200];
    (void)snprintf(url, sizeof(url), "%s%s", test_server_url(fake.server), path);
    set(name, url);
}

static struct s3_options options_of(void)
{
    return (struct s3_options){
        .bucket = "bucket",
        .endpoint = test_server_url(fake.server),
        .patience_us = 3 * CLOCK_SECOND_US,
        .connections = 8,
    };
}

static struct s3 *make(void)
{
    const struct s3_options options = options_of();
    struct s3 *s3 = NULL;
    struct err err;
    if (s3_new(&options, &s3, &err) < 0)
        fail_msg("%s", err.say);
    return s3;
}

static void expect_invalid(void)
{
    const struct s3_options options = options_of();
    struct s3 *s3 = NULL;
    struct err err;
    assert_int_equal(s3_new(&options, &s3, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
}

static void put(struct s3 *s3)
{
    auto_call call;
    call_init(&call);
    if (s3_put(&call, s3, "k", STR("x"), NULL) < 0)
        fail_msg("%s: %s", call.err.say, call.err.why);
}

static enum err_kind put_fails(struct s3 *s3, const char *why)
{
    auto_call call;
    call_init(&call);
    assert_int_equal(s3_put(&call, s3, "k", STR("x"), NULL), -1);
    if (strstr(call.err.why, why) == NULL)
        fail_msg("%s: \"%s\" does not contain \"%s\"", call.err.say, call.err.why, why);
    assert_null(strstr(call.err.why, "wJalrX"));
    return call.err.kind;
}

static bool contains(struct buf *buf, const char *text)
{
    auto_lock held = lock_take(&fake.mutex);
    return buf->p != NULL && memmem(buf->p, buf->n, text, strlen(text)) != NULL;
}

static unsigned obtained(void)
{
    auto_lock held = lock_take(&fake.mutex);
    return fake.obtained;
}

#define assert_store(text) assert_true(contains(&fake.store_heads, (text)))
#define assert_seen(text) assert_true(contains(&fake.seen, (text)))

/* ---- Keys that are given ---- */

static void configured_keys_come_first(void **state)
{
    (void)state;
    set("AWS_ACCESS_KEY_ID", "FROMENVIRONMENT");
    set("AWS_SECRET_ACCESS_KEY", "s");
    set("AWS_SESSION_TOKEN", "t");
    struct s3_options options = options_of();
    options.access_key = "CONFIGURED";
    options.secret_key = "s";
    options.region = "eu-west-1";
    struct s3 *s3 = NULL;
    struct err err;
    assert_int_equal(s3_new(&options, &s3, &err), 0);
    put(s3);
    assert_store("Credential=CONFIGURED/");
    assert_store("/eu-west-1/s3/aws4_request");
    assert_false(contains(&fake.store_heads, "x-amz-security-token"));
    s3_free(s3);
}

static void keys_of_the_environment(void **state)
{
    (void)state;
    set("AWS_ACCESS_KEY_ID", "FROMENVIRONMENT");
    expect_invalid(); /* one without the other */
    set("AWS_SECRET_ACCESS_KEY", "s");
    set("AWS_SESSION_TOKEN", "tok/en==");
    set("AWS_DEFAULT_REGION", "ap-south-1");
    struct s3 *s3 = make();
    put(s3);
    assert_store("Credential=FROMENVIRONMENT/");
    assert_store("/ap-south-1/s3/aws4_request");
    assert_store("x-amz-security-token: tok/en==\r\n");
    assert_store(
        "SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date;x-amz-security-token,");
    auto_call call;
    call_init(&call);
    struct str url = {NULL, 0};
    assert_int_equal(s3_presign(&call, s3, "k", CLOCK_SECOND_US, &url), 0);
    assert_non_null(memmem(url.p, url.n, "&X-Amz-Security-Token=tok%2Fen%3D%3D&", 37));
    tell(expired, 1); /* nothing else can be had */
    assert_int_equal(put_fails(s3, "ExpiredToken"), ERR_DENIED);
    s3_free(s3);
}

/* ---- Web identity ---- */

static void use_web_identity(struct call *call, const char *token)
{
    struct str path = str_printf(&call->arena, "%s/token", test_folder());
    test_write_file(path.p, str_from(token));
    set("AWS_WEB_IDENTITY_TOKEN_FILE", path.p);
    set_url("AWS_ENDPOINT_URL_STS", "");
}

static void a_web_identity_is_exchanged(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    use_web_identity(&call, "eyJh.eyJz.c2ln+/=\n");
    expect_invalid(); /* without a role */
    set("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/Registry");
    set("AWS_ROLE_SESSION_NAME", "node 1");
    struct s3 *s3 = make();
    assert_int_equal(obtained(), 0); /* not before they are wanted */
    put(s3);
    put(s3);
    assert_int_equal(obtained(), 1);
    assert_store("Credential=KEY1/");
    assert_store("x-amz-security-token: token+/1==\r\n");
    assert_seen("POST / HTTP/1.1\r\n");
    assert_seen("Content-Type: application/x-www-form-urlencoded\r\n");
    assert_seen("\r\n\r\nAction=AssumeRoleWithWebIdentity&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012"
                "%3Arole%2FRegistry&RoleSessionName=node%201&Version=2011-06-15&"
                "WebIdentityToken=eyJh.eyJz.c2ln%2B%2F%3D");
    assert_false(contains(&fake.seen, "uthorization:")); /* it is not signed */

    use_web_identity(&call, "second"); /* the file is replaced from time to time */
    tell(expired, 1);
    put(s3);
    assert_seen("WebIdentityToken=second");
    assert_store("Credential=KEY2/");
    tell(expired, 2); /* renewed once, and not for ever */
    assert_int_equal(put_fails(s3, "ExpiredToken"), ERR_DENIED);
    assert_int_equal(obtained(), 3);
    s3_free(s3);
}

static void a_refused_identity_is_said(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    use_web_identity(&call, "secret-token");
    set("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/Registry");
    tell(refuses, true);
    struct s3 *s3 = make();
    struct mono_us began = clock_mono();
    assert_int_equal(put_fails(s3, "STS answered status 400 InvalidIdentityToken"), ERR_DENIED);
    assert_true(clock_since_us(began) < CLOCK_SECOND_US); /* at once */
    s3_free(s3);

    set("AWS_WEB_IDENTITY_TOKEN_FILE", "/does/not/exist");
    s3 = make();
    assert_int_equal(put_fails(s3, "\"/does/not/exist\""), ERR_IO);
    s3_free(s3);
}

/* ---- Containers ---- */

static void a_container_asks_its_agent(void **state)
{
    (void)state;
    auto_call call;
    call_init(&call);
    set_url("AWS_CONTAINER_CREDENTIALS_FULL_URI", "/v1/credentials?id=a");
    set("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Basic abcd");
    struct s3 *s3 = make();
    put(s3);
    assert_store("Credential=KEY1/");
    assert_seen("GET /v1/credentials?id=a HTTP/1.1\r\n");
    assert_seen("Authorization: Basic abcd\r\n");
    s3_free(s3);

    struct str path = str_printf(&call.arena, "%s/agent-token", test_folder());
    test_write_file(path.p, STR("from-file\n"));
    set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", path.p);
    s3 = make();
    put(s3);
    assert_store("Credential=KEY2/");
    assert_seen("Authorization: from-file\r\n"); /* it goes before the variable */
    s3_free(s3);
}

static void an_agent_elsewhere_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"http://example.com/x", "http://169.254.170.20/x",
                                      "ftp://127.0.0.1/", "127.0.0.1/x",
                                      "http://localhost.example.com/"};
    static const char *const good[] = {
        "https://example.com/x", "http://169.254.170.2/x", "http://169.254.170.23/v1/credentials",
        "http://[fd00:ec2::23]/v1/credentials", "http://localhost:1/"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        set("AWS_CONTAINER_CREDENTIALS_FULL_URI", bad[i]);
        expect_invalid();
    }
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        set("AWS_CONTAINER_CREDENTIALS_FULL_URI", good[i]);
        s3_free(make());
    }
    set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/x"); /* goes first */
    struct s3_places places;
    enum s3_source_kind kind;
    struct err err;
    assert_int_equal(s3_places_init(&places, "us-east-1", &kind, &err), 0);
    assert_int_equal(kind, S3_SOURCE_CONTAINER);
    assert_string_equal(places.url, "http://169.254.170.2/v2/credentials/x");
    s3_places_done(&places);
    set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "v2");
    expect_invalid();
}

static void endpoints_by_region(void **state)
{
    (void)state;
    struct s3_places places;
    enum s3_source_kind kind;
    struct err err;
    assert_int_equal(s3_places_init(&places, "us-east-1", &kind, &err), 0);
    assert_int_equal(kind, S3_SOURCE_INSTANCE);
    assert_string_equal(places.url, "http://169.254.169.254");
    s3_places_done(&places);
    set("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv6");
    assert_int_equal(s3_places_init(&places, "us-east-1", &kind, &err), 0);
    assert_string_equal(places.url, "http://[fd00:ec2::254]");
    s3_places_done(&places);
    set("AWS_WEB_IDENTITY_TOKEN_FILE", "/x");
    set("AWS_ROLE_ARN", "arn");
    assert_int_equal(s3_places_init(&places, "cn-north-1", &kind, &err), 0);
    assert_int_equal(kind, S3_SOURCE_WEB_IDENTITY);
    assert_string_equal(places.url, "https://sts.cn-north-1.amazonaws.com.cn");
    assert_string_equal(places.session, "holdfast");
    s3_places_done(&places);
}

/* ---- Instances ---- */

static void use_instance(void)
{
    set_url("AWS_EC2_METADATA_SERVICE_ENDPOINT", "/");
}

static void an_instance_has_a_role(void **state)
{
    (void)state;
    use_instance();
    struct s3 *s3 = make();
    put(s3);
    assert_store("Credential=KEY1/");
    assert_store("x-amz-security-token: token+/1==\r\n");
    assert_int_equal(fake.imds_tokens, 1);
    s3_free(s3);
    set("AWS_EC2_METADATA_DISABLED", "true");
    s3 = make();
    assert_int_equal(put_fails(s3, "none are configured"), ERR_DENIED);
    assert_int_equal(fake.imds_tokens, 1);
    s3_free(s3);
}

static void services_that_fail(void **state)
{
    (void)state;
    use_instance();
    tell(fails, true);
    struct s3 *s3 = make();
    struct mono_us began = clock_mono();
    assert_int_equal(put_fails(s3, "metadata service answered status 500"), ERR_BUSY);
    assert_true(clock_since_us(began) > 2 * CLOCK_SECOND_US &&
                clock_since_us(began) < 5 * CLOCK_SECOND_US);
    tell(fails, false); /* it comes back by itself */
    put(s3);
    s3_free(s3);
    tell(nonsense, true);
    s3 = make();
    assert_int_equal(put_fails(s3, ""), ERR_IO);
    s3_free(s3);
    set("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1");
    s3 = make();
    assert_int_equal(put_fails(s3, "set s3.access_key and s3.secret_key"), ERR_BUSY);
    s3_free(s3);
}

/* ---- Renewal ---- */

static void *put_many(void *context)
{
    for (int i = 0; i < 5; i++)
        put(context);
    return NULL;
}

static void many_callers_ask_once(void **state)
{
    (void)state;
    use_instance();
    fake.slow_us = 100 * MS;
    struct s3 *s3 = make();
    pthread_t threads[8];
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, put_many, s3), 0);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(obtained(), 1);
    s3_free(s3);
}

static void keys_are_renewed_before_they_expire(void **state)
{
    (void)state;
    use_instance();
    fake.lifetime_s = 18; /* they are not used in their last ten seconds */
    struct s3 *s3 = make();
    put(s3);
    assert_int_equal(obtained(), 1);
    for (int i = 0; i < 200 && obtained() < 2; i++) {
        put(s3); /* with the old ones meanwhile, and without waiting */
        test_sleep_us(50 * MS);
    }
    assert_int_equal(obtained(), 2); /* by nobody's request */
    test_sleep_us(50 * MS);
    put(s3);
    assert_store("Credential=KEY2/");

    tell(fails, true); /* a failed renewal does no harm while the old ones are good */
    test_sleep_us(5 * CLOCK_SECOND_US);
    struct mono_us began = clock_mono();
    put(s3);
    assert_true(clock_since_us(began) < CLOCK_SECOND_US);
    assert_store("Credential=KEY2/");
    s3_free(s3);
}

static void nobody_waits_for_keys_that_are_given_up(void **state)
{
    (void)state;
    use_instance();
    fake.slow_us = 8 * CLOCK_SECOND_US;
    struct s3_options options = options_of();
    options.patience_us = 30 * CLOCK_SECOND_US;
    struct s3 *s3 = NULL;
    struct err err;
    assert_int_equal(s3_new(&options, &s3, &err), 0);
    struct mono_us began = clock_mono();
    s3_give_up(s3, (struct mono_us){began.us + 500 * MS});
    assert_int_equal(put_fails(s3, ""), ERR_BUSY);
    assert_in_range(clock_since_us(began), 400 * MS, 2000 * MS);
    s3_free(s3); /* nor does the end */
    assert_true(clock_since_us(began) < 4 * CLOCK_SECOND_US);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(configured_keys_come_first),
        CASE(keys_of_the_environment),
        CASE(a_web_identity_is_exchanged),
        CASE(a_refused_identity_is_said),
        CASE(a_container_asks_its_agent),
        CASE(an_agent_elsewhere_is_refused),
        CASE(endpoints_by_region),
        CASE(an_instance_has_a_role),
        CASE(services_that_fail),
        CASE(many_callers_ask_once),
        CASE(keys_are_renewed_before_they_expire),
        CASE(nobody_waits_for_keys_that_are_given_up),
    };
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
