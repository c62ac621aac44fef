/* What the tests of this room share: registries and backups in folders, filled by the verbs that
 * serve clients, changed behind their backs by SQL, and dumped by SQL, so that no code of this room
 * says whether a copy is right. */
#ifndef HOLDFAST_TEST_TRANSFER_INT_H
#define HOLDFAST_TEST_TRANSFER_INT_H

#include "base/test_tree.h"
#include "blob/blob.h"
#include "db/db.h"
#include "meta/meta.h"
#include "transfer/transfer.h"

#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

struct lab {
    char root[64];
    struct call call;
    struct transfer_options options;
    struct transfer_counts counts;
    atomic_bool stop;
    unsigned stop_after;                                   /* calls of `progress`; 0: never */
    void (*meanwhile)(struct lab *lab, const char *stage); /* in each of these; may be NULL */
    struct buf troubles;                                   /* a line each */
    unsigned n_troubles;
};

/* Every call that must succeed goes through here, so that a failure tells why. */
#define OK(lab, done)                                                                      \
    do {                                                                                   \
        if ((done) < 0) {                                                                  \
            const struct err *err_ = &(lab)->call.err;                                     \
            print_error("%s: %s (%s)\n", err_kind_name(err_->kind), err_->say, err_->why); \
            fail_msg("%s", #done);                                                         \
        }                                                                                  \
    } while (0)
#define FAILS(lab, done, expected)                                                         \
    do {                                                                                   \
        assert_int_equal((done), -1);                                                      \
        assert_string_equal(err_kind_name((lab)->call.err.kind), err_kind_name(expected)); \
    } while (0)

static inline void note_progress(void *context, const char *stage, uint64_t done, uint64_t total)
{
    struct lab *lab = context;
    assert_non_null(stage);
    assert_true(total == 0 || done <= total);
    if (lab->meanwhile != NULL)
        lab->meanwhile(lab, stage);
    if (lab->stop_after > 0 && --lab->stop_after == 0)
        atomic_store(&lab->stop, true);
}

static inline void note_trouble(void *context, const char *text)
{
    struct lab *lab = context;
    lab->n_troubles++;
    buf_printf(&lab->troubles, "%s\n", text);
}

static inline int lab_setup(void **state)
{
    struct lab *lab = mem_zalloc(sizeof(*lab));
    (void)snprintf(lab->root, sizeof(lab->root), "/tmp/holdfast-transfer-XXXXXX");
    assert_non_null(mkdtemp(lab->root));
    call_init(&lab->call);
    lab->troubles = BUF_INIT(1 << 20);
    lab->options = (struct transfer_options){.threads = 4,
                                             .context = lab,
                                             .progress = note_progress,
                                             .trouble = note_trouble,
                                             .stop = &lab->stop};
    *state = lab;
    return 0;
}

static inline int lab_teardown(void **state)
{
    struct lab *lab = *state;
    call_done(&lab->call);
    buf_done(&lab->troubles);
    (void)test_tree_remove(lab->root);
    free(lab);
    return 0;
}

static inline const char *lab_path(struct lab *lab, const char *name)
{
    return str_printf(&lab->call.arena, "%s/%s", lab->root, name).p;
}

/* True when a trouble was told that holds this text. */
static inline bool was_told(const struct lab *lab, const char *text)
{
    return lab->troubles.n > 0 && strstr(lab->troubles.p, text) != NULL;
}

static inline void forget_troubles(struct lab *lab)
{
    buf_done(&lab->troubles);
    lab->troubles = BUF_INIT(1 << 20);
    lab->n_troubles = 0;
}

/* ---- Registries ---- */

static inline int try_open(struct lab *lab, const char *name, enum registry_use use,
                           struct registry **ret)
{
    const struct registry_options options = {.use = use,
                                             .data = lab_path(lab, name),
                                             .readers = 8,
                                             .busy_us = 10 * CLOCK_SECOND_US,
                                             .expire_us = 3600 * CLOCK_SECOND_US,
                                             .lease_us = 30 * CLOCK_SECOND_US};
    return registry_open(&options, ret, &lab->call.err);
}

static inline struct registry *open_as(struct lab *lab, const char *name, enum registry_use use)
{
    struct registry *registry = NULL;
    OK(lab, try_open(lab, name, use, &registry));
    return registry;
}

static inline struct oci_name name_of(const char *text)
{
    struct oci_name name;
    struct err err;
    assert_int_equal(oci_name_parse(str_from(text), &name, &err), 0);
    return name;
}

static inline struct oci_reference reference_of(const char *text)
{
    struct oci_reference reference;
    struct err err;
    assert_int_equal(oci_reference_parse(str_from(text), &reference, &err), 0);
    return reference;
}

static inline const char *digest_text(struct lab *lab, const struct oci_digest *digest)
{
    return str_z(&lab->call.arena, oci_digest_text(&lab->call.arena, digest));
}

static inline struct oci_digest push_blob_as(struct lab *lab, struct registry *registry,
                                             const char *repository, enum hash_algorithm algorithm,
                                             struct str bytes)
{
    struct oci_name name = name_of(repository);
    struct oci_digest digest = oci_digest_of(algorithm, bytes);
    struct registry_upload *upload;
    OK(lab, registry_upload_start_whole(&lab->call, registry, &name, algorithm, &upload));
    OK(lab, registry_upload_write(&lab->call, upload, bytes));
    OK(lab, registry_upload_finish(&lab->call, upload, &digest));
    registry_upload_end(upload);
    return digest;
}

static inline struct oci_digest push_blob(struct lab *lab, struct registry *registry,
                                          const char *repository, const char *bytes)
{
    return push_blob_as(lab, registry, repository, HASH_SHA256, str_from(bytes));
}

static inline struct oci_digest push_manifest(struct lab *lab, struct registry *registry,
                                              const char *repository, const char *tag,
                                              const char *content_type, struct str content)
{
    struct oci_name name = name_of(repository);
    struct oci_digest digest = oci_digest_of(HASH_SHA256, content);
    const struct registry_push push = {
        .reference = reference_of(tag != NULL ? tag : digest_text(lab, &digest)),
        .content_type = str_from(content_type != NULL ? content_type : ""),
        .content = content};
    struct registry_pushed pushed;
    OK(lab, registry_manifest_push(&lab->call, registry, &name, &push, &pushed));
    return pushed.digest;
}

/* One config and one layer of its own, named by `seed`; `more` is more JSON, with a comma before
 * it. `tag` may be NULL. */
static inline struct oci_digest push_image_with(struct lab *lab, struct registry *registry,
                                                const char *repository, const char *tag,
                                                const char *seed, const char *more)
{
    struct str config = str_printf(&lab->call.arena, "{\"config\":\"%s\"}", seed);
    struct str layer = str_printf(&lab->call.arena, "layer %s", seed);
    struct oci_digest digests[] = {push_blob(lab, registry, repository, config.p),
                                   push_blob(lab, registry, repository, layer.p)};
    struct str content = str_printf(
        &lab->call.arena,
        "{\"schemaVersion\":2,\"mediaType\":\"" OCI_MEDIA_TYPE_MANIFEST "\",\"config\":"
        "{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"%s\","
        "\"size\":%zu},\"layers\":[{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\","
        "\"digest\":\"%s\",\"size\":%zu}]%s}",
        digest_text(lab, &digests[0]), config.n, digest_text(lab, &digests[1]), layer.n, more);
    return push_manifest(lab, registry, repository, tag, NULL, content);
}

static inline struct oci_digest push_image(struct lab *lab, struct registry *registry,
                                           const char *repository, const char *tag,
                                           const char *seed)
{
    return push_image_with(lab, registry, repository, tag, seed, "");
}

static inline void delete_manifest(struct lab *lab, struct registry *registry,
                                   const char *repository, const char *text)
{
    struct oci_name name = name_of(repository);
    struct oci_reference reference = reference_of(text);
    OK(lab, registry_manifest_delete(&lab->call, registry, &name, &reference));
}

static inline void delete_blob(struct lab *lab, struct registry *registry, const char *repository,
                               const struct oci_digest *digest)
{
    struct oci_name name = name_of(repository);
    OK(lab, registry_blob_delete(&lab->call, registry, &name, digest));
}

/* Of two images, whose manifests have their sizes in the registry. */
static inline void push_index(struct lab *lab, struct registry *registry, const char *repository,
                              const char *tag, const struct oci_digest *a,
                              const struct oci_digest *b)
{
    auto_buf text = BUF_INIT(4096);
    struct oci_name name = name_of(repository);
    const struct oci_digest *const digests[] = {a, b};
    buf_printf(&text,
               "{\"schemaVersion\":2,\"mediaType\":\"" OCI_MEDIA_TYPE_INDEX "\",\"manifests\":[");
    for (size_t i = 0; i < 2; i++) {
        struct oci_reference reference = {.is_digest = true, .digest = *digests[i]};
        struct registry_manifest manifest;
        OK(lab, registry_manifest_pull(&lab->call, registry, &name, &reference, false, &manifest));
        buf_printf(&text,
                   "%s{\"mediaType\":\"" OCI_MEDIA_TYPE_MANIFEST "\",\"digest\":\"%s\","
                   "\"size\":%llu}",
                   i > 0 ? "," : "", digest_text(lab, digests[i]),
                   (unsigned long long)manifest.size);
    }
    buf_printf(&text, "]}");
    (void)push_manifest(lab, registry, repository, tag, NULL, buf_str(&text));
}

/* Some of everything. */
static inline void fill(struct lab *lab, struct registry *registry)
{
    struct oci_digest a = push_image(lab, registry, "team/app", "v1", "a");
    struct oci_digest b = push_image(lab, registry, "team/app", "v2", "b");
    struct oci_name other = name_of("other");
    struct oci_name app = name_of("team/app");
    struct oci_digest layer = oci_digest_of(HASH_SHA256, STR("layer a"));
    bool mounted;
    (void)push_image(lab, registry, "team/app", NULL, "untagged");
    (void)push_image(lab, registry, "other", "latest", "b");
    OK(lab, registry_blob_mount(&lab->call, registry, &other, &layer, &app, &mounted));
    assert_true(mounted);
    push_index(lab, registry, "team/app", "all", &a, &b);
    (void)push_image_with(
        lab, registry, "team/app", NULL, "signature",
        str_printf(&lab->call.arena,
                   ",\"artifactType\":\"application/x.signature\",\"annotations\":{\"k\":\"v\"},"
                   "\"subject\":{\"mediaType\":\"" OCI_MEDIA_TYPE_MANIFEST
                   "\",\"digest\":\"%s\",\"size\":1}",
                   digest_text(lab, &a))
            .p);
    (void)push_blob_as(lab, registry, "team/app", HASH_SHA512, STR("by another algorithm"));
    (void)push_blob(lab, registry, "z", "");
}

/* ---- Behind their backs ---- */

static inline sqlite3 *open_database(struct lab *lab, const char *path)
{
    sqlite3 *sqlite;
    assert_int_equal(sqlite3_open_v2(lab_path(lab, path), &sqlite, SQLITE_OPEN_READWRITE, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_busy_timeout(sqlite, 10000), SQLITE_OK);
    return sqlite;
}

static inline void run_sql(struct lab *lab, const char *path, const char *sql)
{
    sqlite3 *sqlite = open_database(lab, path);
    char *message = NULL;
    assert_int_equal(sqlite3_exec(sqlite, "PRAGMA foreign_keys = ON", NULL, NULL, NULL), SQLITE_OK);
    if (sqlite3_exec(sqlite, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
    (void)sqlite3_close(sqlite);
}

/* A line for each row. arena */
static inline const char *ask_sql(struct lab *lab, const char *path, const char *sql)
{
    auto_buf text = BUF_INIT((size_t)256 << 20);
    sqlite3 *sqlite = open_database(lab, path);
    sqlite3_stmt *stmt = NULL;
    assert_int_equal(sqlite3_prepare_v2(sqlite, sql, -1, &stmt, NULL), SQLITE_OK);
    int code;
    while ((code = sqlite3_step(stmt)) == SQLITE_ROW) {
        for (int i = 0; i < sqlite3_column_count(stmt); i++)
            buf_printf(&text, "%s%s", i > 0 ? " " : "", (const char *)sqlite3_column_text(stmt, i));
        buf_add_char(&text, '\n');
    }
    assert_int_equal(code, SQLITE_DONE);
    (void)sqlite3_finalize(stmt);
    (void)sqlite3_close(sqlite);
    return str_z(&lab->call.arena, buf_str(&text));
}

/* All that a copy has to have, without ids of rows. arena */
static inline const char *dump(struct lab *lab, const char *name)
{
    const char *path = str_printf(&lab->call.arena, "%s/holdfast.db", name).p;
    return ask_sql(
        lab, path,
        "SELECT 'repository ' || name || ' ' || created_at AS line FROM repository UNION ALL "
        "SELECT 'link ' || r.name || ' ' || b.digest || ' ' || b.size || ' ' || b.created_at"
        " || ' ' || l.linked_at FROM repository_blob l JOIN repository r ON r.id = l.repository_id"
        " JOIN blob b ON b.id = l.blob_id UNION ALL "
        "SELECT 'manifest ' || r.name || ' ' || digest || ' ' || media_type || ' ' ||"
        " artifact_type || ' ' || coalesce(subject, '-') || ' ' || annotations || ' ' || pushed_at"
        " || ' ' || size || ' ' || CAST(content AS TEXT) FROM manifest m JOIN repository r"
        " ON r.id = m.repository_id UNION ALL "
        "SELECT 'needs ' || r.name || ' ' || m.digest || ' ' || n.digest FROM manifest_reference n"
        " JOIN manifest m ON m.id = n.manifest_id JOIN repository r ON r.id = n.repository_id"
        " UNION ALL "
        "SELECT 'tag ' || r.name || ' ' || t.name || ' ' || m.digest || ' ' || t.updated_at"
        " FROM tag t JOIN manifest m ON m.id = t.manifest_id JOIN repository r"
        " ON r.id = t.repository_id ORDER BY line");
}

static inline void assert_same_text(const char *expected, const char *actual)
{
    if (strcmp(expected, actual) == 0)
        return;
    size_t at = 0;
    while (expected[at] == actual[at])
        at++;
    while (at > 0 && expected[at - 1] != '\n')
        at--;
    fail_msg("they differ:\n  %.300s\n  %.300s", &expected[at], &actual[at]);
}

static inline void blob_path(struct lab *lab, const char *folder, const struct oci_digest *digest,
                             char path[512])
{
    const char *text = digest_text(lab, digest);
    const char *hex = strchr(text, ':') + 1;
    (void)snprintf(path, 512, "%s/%s/blobs/%.*s/%.2s/%s", lab->root, folder, (int)(hex - text - 1),
                   text, hex, hex);
}

static inline bool has_blob(struct lab *lab, const char *folder, const struct oci_digest *digest)
{
    char path[512];
    blob_path(lab, folder, digest, path);
    return access(path, F_OK) == 0;
}

static inline void remove_blob(struct lab *lab, const char *folder, const struct oci_digest *digest)
{
    char path[512];
    blob_path(lab, folder, digest, path);
    assert_int_equal(unlink(path), 0);
}

/* Another file of these bytes; a hard link elsewhere keeps its own. */
static inline void replace_blob(struct lab *lab, const char *folder,
                                const struct oci_digest *digest, const char *bytes)
{
    char path[512];
    blob_path(lab, folder, digest, path);
    assert_int_equal(unlink(path), 0);
    auto_fd fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, strlen(bytes)), strlen(bytes));
}

static unsigned n_counted;

static inline int count_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)path;
    (void)st;
    (void)ftw;
    n_counted += flag == FTW_F;
    return 0;
}

static inline unsigned count_files(struct lab *lab, const char *folder)
{
    n_counted = 0;
    assert_int_equal(nftw(lab_path(lab, folder), count_one, 16, FTW_PHYS), 0);
    return n_counted;
}

static inline void note_finding(void *context, enum registry_finding finding, const char *text)
{
    unsigned *found = context;
    found[finding]++;
    if (finding == REGISTRY_WRONG)
        print_error("fsck: %s\n", text);
}

static inline void ignore_progress(void *context, const char *stage, uint64_t done, uint64_t total)
{
    (void)context;
    (void)stage;
    (void)done;
    (void)total;
}

/* fsck hashes every blob and manifest, and knows nothing of copies. Returns what was left over. */
static inline unsigned assert_sound(struct lab *lab, const char *name)
{
    unsigned found[REGISTRY_FREED + 1] = {0};
    const struct registry_fsck fsck = {
        .deep = true, .context = found, .found = note_finding, .progress = ignore_progress};
    struct registry *registry = open_as(lab, name, REGISTRY_ALONE);
    auto_call call = {0}; /* its memory is given back in between */
    uint64_t wrong;
    assert_int_equal(registry_fsck(&call, registry, &fsck, &wrong), 0);
    registry_close(registry);
    assert_int_equal(wrong, 0);
    return found[REGISTRY_LEFTOVER];
}

/* Runs `body` in another process, which is killed at that passing of that crash point. Returns
 * false when it came to its end. */
static inline bool crashes_at(struct lab *lab, const char *point, void (*body)(struct lab *lab))
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)setenv("HOLDFAST_TEST_CRASH", point, 1);
        body(lab);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status);
}

/* ---- Many ---- */

/* So many of all kinds, quickly: manifests and tags of every name that `keep` lets through. */
struct filling {
    struct registry *registry;
    unsigned n;
    unsigned step; /* every so many of them */
};

static inline void fill_entry(struct call *call, int64_t repository, unsigned i)
{
    struct oci_manifest manifest;
    struct meta_blob blob;
    struct oci_tag tag;
    int64_t id;
    struct str bytes = str_printf(&call->arena, "blob %u", i);
    struct oci_digest of_bytes = oci_digest_of(HASH_SHA256, bytes);
    struct str content = str_printf(&call->arena,
                                    "{\"schemaVersion\":2,\"mediaType\":\"" OCI_MEDIA_TYPE_INDEX
                                    "\",\"manifests\":[],\"annotations\":{\"n\":\"%u\"}}",
                                    i);
    struct oci_digest of_content = oci_digest_of(HASH_SHA256, content);
    struct str name = str_printf(&call->arena, "t%u", i);
    assert_int_equal(oci_tag_parse(name, &tag, &call->err), 0);
    assert_int_equal(oci_manifest_parse(&call->arena, STR(""), content, &manifest, &call->err), 0);
    const struct wall_us at = {1000 + i};
    assert_int_equal(meta_manifest_put(call, repository, &of_content, &manifest, content, at, &id),
                     0);
    assert_int_equal(meta_tag_set(call, repository, &tag, id, at), 0);
    assert_int_equal(meta_blob_adopt(call, &of_bytes, bytes.n, STR(""), at, &blob), 0);
    assert_int_equal(meta_blob_link(call, repository, blob.id, at), 0);
}

static inline int fill_entries(struct call *call, void *context)
{
    const struct filling *filling = context;
    struct oci_name name = name_of("many");
    int64_t repository;
    assert_int_equal(meta_repository_ensure(call, &name, (struct wall_us){5}, &repository), 0);
    for (unsigned i = 0; i < filling->n; i += filling->step)
        fill_entry(call, repository, i);
    return 0;
}

/* The bytes need not be durable in a test. */
static inline void write_blobs(struct lab *lab, const char *folder, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct str bytes = str_printf(&lab->call.arena, "blob %u", i);
        struct oci_digest digest = oci_digest_of(HASH_SHA256, bytes);
        char path[512];
        blob_path(lab, folder, &digest, path);
        *strrchr(path, '/') = '\0';
        (void)mkdir(path, 0750);
        blob_path(lab, folder, &digest, path);
        auto_fd fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
        assert_int_equal(write(fd, bytes.p, bytes.n), bytes.n);
    }
}

static inline void fill_many(struct lab *lab, const char *name, unsigned n, unsigned step)
{
    struct filling filling = {open_as(lab, name, REGISTRY_SERVE), n, step};
    write_blobs(lab, name, n);
    OK(lab, db_transact(&lab->call, registry_db(filling.registry), fill_entries, &filling));
    registry_close(filling.registry);
}

#endif
