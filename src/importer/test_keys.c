#include "importer/importer_int.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define THREADS 8
#define ROUNDS 2000

static struct oci_digest digest_number(unsigned n)
{
    char text[16];
    int length = snprintf(text, sizeof(text), "%u", n);
    return oci_digest_of(HASH_SHA256, (struct str){text, (size_t)length});
}

static void keys(void **state)
{
    struct oci_digest one = digest_number(1);
    struct oci_digest two = digest_number(2);
    struct key key = key_of(STR("a"), &one);
    struct key again = key_of(STR("a"), &one);
    struct key other_digest = key_of(STR("a"), &two);
    struct key other_repository = key_of(STR("b"), &one);
    (void)state;
    assert_memory_equal(&key, &again, sizeof(key));
    assert_memory_not_equal(&key, &other_digest, sizeof(key));
    assert_memory_not_equal(&key, &other_repository, sizeof(key));
}

/* Far beyond the first size of the table. */
static void seen_remembers(void **state)
{
    struct seen *seen = seen_new();
    (void)state;
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < 20000; i++) {
            struct oci_digest digest = digest_number(i);
            if (seen_add(seen, key_of(STR(""), &digest)) != (round == 0))
                fail_msg("key %u, round %u", i, round);
        }
    seen_free(seen);
}

struct shared {
    struct claims *claims;
    atomic_int inside[3]; /* holders of each key */
    atomic_bool broken;
};

static void *claim_often(void *context)
{
    struct shared *shared = context;
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned which = i % 3;
        struct oci_digest digest = digest_number(which);
        struct key key = key_of(STR(""), &digest);
        claims_take(shared->claims, key);
        if (atomic_fetch_add(&shared->inside[which], 1) != 0)
            atomic_store(&shared->broken, true);
        (void)atomic_fetch_sub(&shared->inside[which], 1);
        claims_release(shared->claims, key);
    }
    return NULL;
}

static void claims_exclude(void **state)
{
    struct shared shared = {.claims = claims_new()};
    pthread_t threads[THREADS];
    (void)state;
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, claim_often, &shared), 0);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_false(atomic_load(&shared.broken));
    claims_free(shared.claims);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys),
        cmocka_unit_test(seen_remembers),
        cmocka_unit_test(claims_exclude),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
