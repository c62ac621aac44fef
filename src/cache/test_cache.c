#include "cache/cache_int.h"
#include "cache/siphash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <cmocka.h>

/* ---- Helpers ---- */

static uint64_t random_next(uint64_t *state) /* xorshift64 (Marsaglia, 2003) */
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void put(struct cache *cache, const char *key, const char *value)
{
    cache_put(cache, str_from(key), str_from(value), cache_ticket(cache, str_from(key)));
}

/* `expected`: NULL when it must not be there. */
static void must_find(struct cache *cache, const char *key, const char *expected)
{
    auto_arena arena = {0};
    struct str value = STR("untouched");
    assert_int_equal(cache_find(cache, str_from(key), &arena, &value), expected != NULL);
    assert_true(str_eq(value, str_from(expected != NULL ? expected : "untouched")));
}

/* ---- The hash ---- */

static void the_hash_is_siphash_1_3(void **state)
{
    (void)state;
    /* As CPython 3.11 hashes bytes(range(n)), sys.hash_info.algorithm "siphash13", with
     * PYTHONHASHSEED 0, 1 and 42 (its secret: lcg_urandom in Python/bootstrap_hash.c). */
    static const struct {
        uint64_t secret[2];
        size_t n;
        uint64_t hash;
    } cases[] = {
        {{0, 0}, 1, 0x68a914128e01e473},
        {{0, 0}, 7, 0x2f098ab0c751325a},
        {{0, 0}, 8, 0xead411e67ebe2eea},
        {{0, 0}, 200, 0x7176378efd9e8a23},
        {{0xaed66ce184be2329, 0xebe9bbf1f1499052}, 1, 0xecd3e5afcecda4b9},
        {{0xaed66ce184be2329, 0xebe9bbf1f1499052}, 9, 0x208a1a5a0cbbf778},
        {{0xaed66ce184be2329, 0xebe9bbf1f1499052}, 15, 0xfa87985f39e97a53},
        {{0xaed66ce184be2329, 0xebe9bbf1f1499052}, 16, 0x12e9d283f9f37002},
        {{0xdc504fd368cd90af, 0xb920bb9ffe99e9c1}, 63, 0x06e24d6f0d014c37},
        {{0xdc504fd368cd90af, 0xb920bb9ffe99e9c1}, 64, 0x91639ef7de8d52cb},
        {{0xdc504fd368cd90af, 0xb920bb9ffe99e9c1}, 65, 0xde4666257f4078ff},
        {{0xdc504fd368cd90af, 0xb920bb9ffe99e9c1}, 200, 0x8edc9abbc13e0591},
    };
    char bytes[200];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char)i;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_true(siphash(cases[i].secret, (struct str){bytes, cases[i].n}) == cases[i].hash);
}

static void two_caches_have_two_secrets(void **state)
{
    (void)state;
    struct cache *a = cache_new(1 << 20);
    struct cache *b = cache_new(1 << 20);
    size_t same = 0;
    for (char key[] = "a"; key[0] <= 'z'; key[0]++) {
        struct cache_place in_a = cache_place(a, str_from(key));
        struct cache_place in_b = cache_place(b, str_from(key));
        same += in_a.shard == in_b.shard && in_a.ticket == in_b.ticket;
    }
    assert_true(same < 13); /* of 26; one in 2048 is by chance */
    cache_free(a);
    cache_free(b);
}

/* ---- One thread ---- */

static void what_is_put_is_found(void **state)
{
    (void)state;
    struct cache *cache = cache_new(1 << 20);
    must_find(cache, "a", NULL);
    put(cache, "a", "1");
    put(cache, "b", "");
    put(cache, "", "2");
    must_find(cache, "a", "1");
    must_find(cache, "b", "");
    must_find(cache, "", "2");
    put(cache, "a", "another");
    must_find(cache, "a", "another");
    struct cache_counts counts = cache_count(cache);
    assert_int_equal(counts.entries, 3);
    assert_int_equal(counts.hits, 4);
    assert_int_equal(counts.misses, 4); /* a ticket for each put */
    assert_int_equal(counts.bytes,
                     cache_entry_bytes(1, 7) + cache_entry_bytes(1, 0) + cache_entry_bytes(0, 1));
    cache_free(cache);
    cache_free(NULL);
}

static void what_was_found_outlives_its_entry(void **state)
{
    (void)state;
    struct cache *cache = cache_new(1 << 20);
    auto_arena arena = {0};
    struct str value;
    put(cache, "a", "the value");
    assert_true(cache_find(cache, STR("a"), &arena, &value));
    cache_forget_all(cache);
    cache_free(cache);
    assert_true(str_eq(value, STR("the value")));
}

static void what_is_forgotten_is_gone_and_so_is_its_ticket(void **state)
{
    (void)state;
    struct cache *cache = cache_new(1 << 20);
    put(cache, "a", "1");
    uint64_t before = cache_ticket(cache, STR("a"));
    cache_forget(cache, STR("a"));
    must_find(cache, "a", NULL);
    cache_put(cache, STR("a"), STR("old"), before);
    must_find(cache, "a", NULL);
    put(cache, "a", "new");
    cache_put(cache, STR("a"), STR("old"), before); /* does not harm what is there */
    must_find(cache, "a", "new");

    /* Also when there was nothing to be forgotten. */
    before = cache_ticket(cache, STR("b"));
    cache_forget(cache, STR("b"));
    cache_put(cache, STR("b"), STR("old"), before);
    must_find(cache, "b", NULL);

    before = cache_ticket(cache, STR("c"));
    cache_forget_all(cache);
    cache_put(cache, STR("c"), STR("old"), before);
    must_find(cache, "c", NULL);
    must_find(cache, "a", NULL);
    assert_int_equal(cache_count(cache).entries, 0);
    assert_int_equal(cache_count(cache).bytes, 0);
    cache_free(cache);
}

static void a_cache_of_nothing_keeps_nothing(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, CACHE_SHARDS * 8, CACHE_SHARDS * 100};
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct cache *cache = cache_new(sizes[i]);
        put(cache, "a", "1");
        put(cache, "", "");
        must_find(cache, "a", NULL);
        cache_forget(cache, STR("a"));
        cache_forget_all(cache);
        assert_int_equal(cache_count(cache).bytes, 0);
        cache_free(cache);
    }
}

static void large_values_are_not_kept(void **state)
{
    (void)state;
    struct cache *cache = cache_new(64 << 20);
    size_t shard = cache_shard_bytes(cache);
    assert_in_range(shard, (2 << 20) - (64 << 10), 2 << 20); /* the rest is for the table */
    size_t largest = shard / 8 - cache_entry_bytes(1, 0);
    auto_mem char *bytes = mem_zalloc(largest + 1);
    struct str value = {bytes, largest};

    cache_put(cache, STR("a"), value, cache_ticket(cache, STR("a")));
    auto_arena arena = {0};
    struct str found;
    assert_true(cache_find(cache, STR("a"), &arena, &found));
    assert_true(str_eq(found, value));
    value.n++; /* and what is there would be wrong, if it stayed */
    cache_put(cache, STR("a"), value, cache_ticket(cache, STR("a")));
    must_find(cache, "a", NULL);
    cache_free(cache);
}

static void a_large_cache_works(void **state)
{
    (void)state;
    struct cache *cache = cache_new((size_t)8 << 30); /* nothing is touched that is not used */
    put(cache, "a", "1");
    must_find(cache, "a", "1");
    cache_free(cache);
}

/* ---- Against a model ---- */

#define MODEL_KEYS 700
#define MODEL_VALUE_MAX 700 /* the largest are more than an eighth of a shard */

/* The cache as it should be: all that it would keep, and in which order it was used. */
struct model {
    struct cache *cache;
    size_t bytes[CACHE_SHARDS];
    uint64_t forgotten[CACHE_SHARDS][CACHE_TICKETS];
    uint64_t now;
    struct model_key {
        char name[16];
        struct cache_place place;
        bool kept;
        uint64_t used;
        size_t value_n;
        char fill; /* the value is so many of it */
        uint64_t ticket;
        uint64_t ticket_forgotten;
    } keys[MODEL_KEYS];
};

static struct str name_of(const struct model_key *key)
{
    return str_from(key->name);
}

static size_t bytes_of(const struct model_key *key)
{
    return cache_entry_bytes(strlen(key->name), key->value_n);
}

static void model_drop(struct model *model, struct model_key *key)
{
    if (key->kept)
        model->bytes[key->place.shard] -= bytes_of(key);
    key->kept = false;
}

static void model_make_room(struct model *model, size_t shard, size_t bytes)
{
    while (model->bytes[shard] + bytes > cache_shard_bytes(model->cache)) {
        struct model_key *oldest = NULL;
        for (size_t i = 0; i < MODEL_KEYS; i++)
            if (model->keys[i].kept && model->keys[i].place.shard == shard &&
                (oldest == NULL || model->keys[i].used < oldest->used))
                oldest = &model->keys[i];
        assert_non_null(oldest);
        model_drop(model, oldest);
    }
}

static void model_put(struct model *model, struct model_key *key, size_t value_n, char fill)
{
    size_t shard = key->place.shard;
    char value[MODEL_VALUE_MAX];
    memset(value, fill, sizeof(value));
    cache_put(model->cache, name_of(key), (struct str){value, value_n}, key->ticket);
    if (key->ticket_forgotten != model->forgotten[shard][key->place.ticket])
        return;

    model_drop(model, key);
    key->value_n = value_n;
    key->fill = fill;
    size_t bytes = bytes_of(key);
    if (bytes > cache_shard_bytes(model->cache) / CACHE_VALUE_PART)
        return;
    model_make_room(model, shard, bytes);
    model->bytes[shard] += bytes;
    key->kept = true;
    key->used = ++model->now;
}

static void model_find(struct model *model, struct model_key *key)
{
    auto_arena arena = {0};
    struct str found;
    assert_int_equal(cache_find(model->cache, name_of(key), &arena, &found), key->kept);
    if (!key->kept)
        return;
    assert_int_equal(found.n, key->value_n);
    for (size_t i = 0; i < found.n; i++)
        assert_int_equal(found.p[i], key->fill);
    key->used = ++model->now;
}

static void model_forget_all(struct model *model)
{
    cache_forget_all(model->cache);
    for (size_t i = 0; i < MODEL_KEYS; i++)
        model_drop(model, &model->keys[i]);
    for (size_t shard = 0; shard < CACHE_SHARDS; shard++)
        for (size_t i = 0; i < CACHE_TICKETS; i++)
            model->forgotten[shard][i]++;
}

static void model_step(struct model *model, uint64_t random)
{
    struct model_key *key = &model->keys[random % MODEL_KEYS];
    unsigned choice = random >> 32 & 0xFF;
    if (choice < 100) {
        model_find(model, key);
    } else if (choice < 150) {
        key->ticket = cache_ticket(model->cache, name_of(key));
        key->ticket_forgotten = model->forgotten[key->place.shard][key->place.ticket];
    } else if (choice < 245) {
        model_put(model, key, (random >> 40) % MODEL_VALUE_MAX, (char)(random >> 56));
    } else if (choice < 255 || random >> 40 & 0xF) {
        cache_forget(model->cache, name_of(key));
        model_drop(model, key);
        model->forgotten[key->place.shard][key->place.ticket]++;
    } else {
        model_forget_all(model);
    }
}

static void it_does_what_the_model_does(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        const size_t bytes_max = (size_t)CACHE_SHARDS * 5000;
        auto_mem struct model *model = mem_zalloc(sizeof(*model));
        model->cache = cache_new(bytes_max);
        for (size_t i = 0; i < MODEL_KEYS; i++) {
            struct model_key *key = &model->keys[i];
            (void)snprintf(key->name, sizeof(key->name), "key %zu", i);
            key->place = cache_place(model->cache, name_of(key));
        }
        uint64_t random = seed;
        uint64_t most = 0;
        for (size_t step = 0; step < 20000; step++) {
            model_step(model, random_next(&random));
            struct cache_counts counts = cache_count(model->cache);
            uint64_t entries = 0;
            uint64_t bytes = 0;
            for (size_t i = 0; i < MODEL_KEYS; i++) {
                entries += model->keys[i].kept;
                bytes += model->keys[i].kept ? bytes_of(&model->keys[i]) : 0;
            }
            assert_int_equal(counts.entries, entries);
            assert_int_equal(counts.bytes, bytes);
            assert_true(bytes <= bytes_max);
            most = bytes > most ? bytes : most;
        }
        assert_true(most > bytes_max / 2); /* it was full, or nothing was tested */
        for (size_t i = 0; i < MODEL_KEYS; i++)
            model_find(model, &model->keys[i]);
        cache_free(model->cache);
    }
}

/* ---- Many threads ---- */

#define THREADS 8
#define TRUTHS 40
#define STEPS 6000

/* What the cache holds answers about. A change counts from the moment that it is told. */
struct world {
    struct cache *cache;
    atomic_uint truth[TRUTHS];
    atomic_uint told[TRUTHS];
    atomic_uint wrong; /* answers that were older than what was told, or broken */
    atomic_uint hits;
};
struct worker {
    struct world *world;
    uint64_t random;
    pthread_t thread;
};

/* An answer is its version over and over. */
static struct str answer_make(unsigned version, unsigned *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        words[i] = version;
    return (struct str){(const char *)words, n * sizeof(*words)};
}

static bool answer_is_whole(struct str answer, unsigned *ret_version)
{
    unsigned first;
    if (answer.n < sizeof(first) || answer.n % sizeof(first) != 0)
        return false;
    memcpy(&first, answer.p, sizeof(first));
    *ret_version = first;
    return memcmp(answer.p, answer.p + sizeof(first), answer.n - sizeof(first)) == 0;
}

static void look_up(struct world *world, size_t i, struct str key, uint64_t random)
{
    auto_arena arena = {0};
    struct str answer;
    unsigned version;
    unsigned told = atomic_load(&world->told[i]);
    if (cache_find(world->cache, key, &arena, &answer)) {
        atomic_fetch_add(&world->hits, 1);
        if (!answer_is_whole(answer, &version) || version < told)
            atomic_fetch_add(&world->wrong, 1);
        return;
    }
    uint64_t ticket = cache_ticket(world->cache, key);
    version = atomic_load(&world->truth[i]);
    if (random >> 40 & 1)
        (void)sched_yield(); /* the look-up takes its time */
    unsigned words[1200];
    answer = answer_make(version, words, 1 + (random >> 44) % ARRAY_SIZE(words));
    cache_put(world->cache, key, answer, ticket);
}

/* Told is never more than what was forgotten: told versions are true ones that came before. */
static void change(struct world *world, size_t i, struct str key, bool all)
{
    unsigned version = atomic_fetch_add(&world->truth[i], 1) + 1;
    if (all)
        cache_forget_all(world->cache);
    else
        cache_forget(world->cache, key);
    unsigned told = atomic_load(&world->told[i]);
    while (told < version && !atomic_compare_exchange_weak(&world->told[i], &told, version))
        ;
}

static void *work(void *p)
{
    struct worker *worker = p;
    for (size_t step = 0; step < STEPS; step++) {
        uint64_t random = random_next(&worker->random);
        size_t i = random % TRUTHS;
        char name[16];
        struct str key = {name, (size_t)snprintf(name, sizeof(name), "key %zu", i)};
        unsigned choice = random >> 32 & 0xFF;
        if (choice < 230)
            look_up(worker->world, i, key, random);
        else if (choice < 254)
            change(worker->world, i, key, false);
        else if (choice < 255)
            change(worker->world, i, key, true);
        else
            (void)cache_count(worker->world->cache);
    }
    return NULL;
}

static void no_answer_is_older_than_what_was_told(void **state)
{
    (void)state;
    /* Room for some of the answers, so that they push each other out, too. */
    struct world world = {.cache = cache_new((size_t)CACHE_SHARDS * 6000 * CACHE_VALUE_PART / 6)};
    struct worker workers[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.world = &world, .random = i + 1};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
    assert_int_equal(atomic_load(&world.wrong), 0);
    assert_true(atomic_load(&world.hits) > STEPS / 10);
    struct cache_counts counts = cache_count(world.cache);
    assert_int_equal(counts.hits, atomic_load(&world.hits));
    cache_free(world.cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_hash_is_siphash_1_3),
        cmocka_unit_test(two_caches_have_two_secrets),
        cmocka_unit_test(what_is_put_is_found),
        cmocka_unit_test(what_was_found_outlives_its_entry),
        cmocka_unit_test(what_is_forgotten_is_gone_and_so_is_its_ticket),
        cmocka_unit_test(a_cache_of_nothing_keeps_nothing),
        cmocka_unit_test(large_values_are_not_kept),
        cmocka_unit_test(a_large_cache_works),
        cmocka_unit_test(it_does_what_the_model_does),
        cmocka_unit_test(no_answer_is_older_than_what_was_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
