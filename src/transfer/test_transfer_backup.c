/* Backups: snapshots, what is restored of them, and how they are kept. */
#include "transfer/test_transfer_int.h"

#include <sys/file.h>

#define NOW ((struct wall_us){INT64_MAX})

static struct wall_us last_time; /* of the last snapshot */

static int try_backup(struct lab *lab, const char *from, bool blobs)
{
    struct registry *registry = open_as(lab, from, REGISTRY_OBSERVE);
    int done = transfer_backup(&lab->call, registry, lab_path(lab, "backup"), blobs, &lab->options,
                               &last_time, &lab->counts);
    registry_close(registry);
    return done;
}

static struct wall_us back_up(struct lab *lab)
{
    OK(lab, try_backup(lab, "from", true));
    return last_time;
}

static int try_restore(struct lab *lab, struct wall_us when, const char *to, bool overwrite)
{
    struct registry *registry = open_as(lab, to, REGISTRY_ALONE);
    struct wall_us time = {0};
    int done = transfer_restore(&lab->call, lab_path(lab, "backup"), when, registry, overwrite,
                                &lab->options, &time, &lab->counts);
    registry_close(registry);
    assert_true(done < 0 || time.us <= when.us);
    return done;
}

static void restore(struct lab *lab, struct wall_us when, const char *to)
{
    OK(lab, try_restore(lab, when, to, false));
}

/* Returns what was told. */
static uint64_t verify(struct lab *lab)
{
    uint64_t differences;
    forget_troubles(lab);
    OK(lab, transfer_verify(&lab->call, lab_path(lab, "backup"), &lab->options, &differences));
    assert_int_equal(differences, lab->n_troubles);
    return differences;
}

static uint64_t prune(struct lab *lab, struct wall_us before, uint64_t *ret_bytes)
{
    uint64_t snapshots;
    OK(lab, transfer_prune(&lab->call, lab_path(lab, "backup"), before, &lab->options, &snapshots,
                           ret_bytes));
    return snapshots;
}

struct list {
    struct transfer_snapshot snapshots[16];
    size_t n;
};

static void list_one(void *context, int64_t id, const struct transfer_snapshot *snapshot)
{
    struct list *list = context;
    assert_true(id > 0);
    assert_true(list->n < ARRAY_SIZE(list->snapshots));
    list->snapshots[list->n++] = *snapshot;
}

static struct list list_all(struct lab *lab)
{
    struct list list = {0};
    OK(lab, transfer_list(&lab->call, lab_path(lab, "backup"), list_one, &list));
    return list;
}

static void remove_folder(struct lab *lab, const char *name)
{
    (void)test_tree_remove(lab_path(lab, name));
}

static void assert_restored(struct lab *lab, const char *expected, const char *to)
{
    assert_same_text(expected, dump(lab, to));
    (void)assert_sound(lab, to);
}

/* ---- A registry that changes, and how it was at each snapshot ---- */

#define STATES 5

struct history {
    struct oci_digest first; /* a manifest that comes, goes and comes again */
    const char *dumps[STATES];
    struct wall_us times[STATES];
    struct transfer_counts counts[STATES];
};

static void change(struct lab *lab, struct registry *registry, struct history *history, int state)
{
    struct oci_digest config = oci_digest_of(HASH_SHA256, STR("{\"config\":\"first\"}"));
    struct oci_digest layer = oci_digest_of(HASH_SHA256, STR("layer first"));
    switch (state) {
    case 0:
        fill(lab, registry);
        history->first = push_image(lab, registry, "short", "lived", "first");
        break;
    case 1: /* a tag moves, another goes, a repository comes */
        (void)push_image(lab, registry, "team/app", "v1", "b");
        (void)push_image(lab, registry, "later", "v1", "later");
        delete_manifest(lab, registry, "other", "latest");
        break;
    case 2: /* a manifest and its blobs go */
        delete_manifest(lab, registry, "short", digest_text(lab, &history->first));
        delete_blob(lab, registry, "short", &config);
        delete_blob(lab, registry, "short", &layer);
        break;
    case 3: /* both are as they were, at another time */
        (void)push_image(lab, registry, "short", "lived", "first");
        (void)push_image(lab, registry, "team/app", "v1", "a");
        break;
    default: /* nothing changes */
        break;
    }
}

static struct history live(struct lab *lab)
{
    struct history history = {0};
    for (int state = 0; state < STATES; state++) {
        struct registry *registry = open_as(lab, "from", REGISTRY_SERVE);
        change(lab, registry, &history, state);
        history.dumps[state] = dump(lab, "from");
        history.times[state] = back_up(lab); /* while it is served */
        history.counts[state] = lab->counts;
        registry_close(registry);
    }
    return history;
}

static void every_snapshot_is_restored_as_it_was(void **state)
{
    struct lab *lab = *state;
    struct history history = live(lab);
    assert_int_equal(verify(lab), 0);
    for (int i = 0; i < STATES; i++) {
        restore(lab, history.times[i], "to");
        assert_restored(lab, history.dumps[i], "to");
        assert_int_equal(lab->counts.troubles, 0);
        remove_folder(lab, "to");
    }
    restore(lab, (struct wall_us){history.times[3].us - 1}, "to");
    assert_restored(lab, history.dumps[2], "to");
    restore(lab, NOW, "to"); /* a copy is set right without a word */
    assert_restored(lab, history.dumps[4], "to");
}

/* Forwards and backwards, into one registry. */
static void a_copy_goes_from_snapshot_to_snapshot(void **state)
{
    static const int order[] = {4, 0, 2, 1, 3, 1, 0, 4};
    struct lab *lab = *state;
    struct history history = live(lab);
    for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
        restore(lab, history.times[order[i]], "to");
        assert_restored(lab, history.dumps[order[i]], "to");
        restore(lab, history.times[order[i]], "to");
        assert_int_equal(lab->counts.manifests + lab->counts.tags + lab->counts.removed +
                             lab->counts.blobs + lab->counts.present,
                         0);
    }
}

static void a_snapshot_adds_only_what_changed(void **state)
{
    struct lab *lab = *state;
    struct history history = live(lab);
    assert_int_equal(history.counts[0].manifests, 7);
    assert_int_equal(history.counts[0].blobs, 12);
    assert_int_equal(history.counts[1].manifests, 1);
    assert_int_equal(history.counts[1].tags, 2);
    assert_int_equal(history.counts[1].blobs, 2);
    assert_int_equal(history.counts[1].removed, 1);
    assert_int_equal(history.counts[2].removed, 4);
    assert_int_equal(history.counts[3].blobs, 0); /* the older snapshots kept them */
    assert_int_equal(history.counts[3].tags, 2);
    assert_int_equal(history.counts[4].manifests + history.counts[4].tags +
                         history.counts[4].blobs + history.counts[4].removed,
                     0);
    assert_int_equal(history.counts[4].present, 14);
    struct list list = list_all(lab);
    assert_int_equal(list.n, STATES);
    for (int i = 0; i < STATES; i++) {
        assert_int_equal(list.snapshots[i].time.us, history.times[i].us);
        assert_true(list.snapshots[i].blobs);
    }
    assert_int_equal(list.snapshots[0].repositories, 4);
    assert_int_equal(list.snapshots[0].manifests, 7);
    assert_int_equal(list.snapshots[0].tags, 5);
    assert_int_equal(list.snapshots[0].blob_count, 12);
    assert_int_equal(list.snapshots[2].repositories, 5);
    assert_int_equal(list.snapshots[2].manifests, 7);
    assert_int_equal(list.snapshots[2].tags, 4);
    assert_int_equal(list.snapshots[2].blob_count, 12);
    uint64_t bytes = 0;
    for (const char *line = ask_sql(lab, "from/holdfast.db", "SELECT sum(size) FROM blob");
         *line >= '0'; line++)
        bytes = bytes * 10 + (uint64_t)(*line - '0');
    assert_int_equal(list.snapshots[4].blob_bytes, bytes);
}

/* A repository that goes for good, and one of its name that comes later. */
static void a_repository_that_is_gone_is_gone_in_the_snapshot(void **state)
{
    struct lab *lab = *state;
    struct history history = {0};
    registry_close(open_as(lab, "from", REGISTRY_SERVE));
    static const char *const changes[] = {
        "DELETE FROM tag; DELETE FROM manifest; DELETE FROM repository_blob;"
        "DELETE FROM repository WHERE name = 'team/app'",
        "INSERT INTO repository VALUES (100, 'team/app', 7)",
    };
    for (size_t i = 0; i < 3; i++) {
        if (i == 0) {
            struct registry *registry = open_as(lab, "from", REGISTRY_SERVE);
            fill(lab, registry);
            registry_close(registry);
        } else {
            run_sql(lab, "from/holdfast.db", changes[i - 1]);
        }
        history.dumps[i] = dump(lab, "from");
        history.times[i] = back_up(lab);
    }
    for (size_t i = 0; i < 3; i++) {
        restore(lab, history.times[i], "to");
        assert_restored(lab, history.dumps[i], "to");
    }
    restore(lab, history.times[0], "to");
    assert_restored(lab, history.dumps[0], "to");
    uint64_t bytes;
    assert_int_equal(prune(lab, NOW, &bytes), 2);
    assert_string_equal(ask_sql(lab, "backup/backup.db", "SELECT name FROM repository ORDER BY 1"),
                        "other\nteam/app\nz\n");
}

/* ---- Whose backup ---- */

static void a_registry_with_a_life_of_its_own_is_kept(void **state)
{
    struct lab *lab = *state;
    struct history history = live(lab);
    struct registry *registry = open_as(lab, "to", REGISTRY_SERVE);
    (void)push_image(lab, registry, "mine", "v1", "mine");
    registry_close(registry);
    const char *before = dump(lab, "to");
    FAILS(lab, try_restore(lab, NOW, "to", false), ERR_CONFLICT);
    assert_non_null(strstr(lab->call.err.say, "--overwrite"));
    assert_same_text(before, dump(lab, "to"));
    OK(lab, try_restore(lab, NOW, "to", true));
    assert_restored(lab, history.dumps[4], "to"); /* nothing of its own is left */
}

static void a_registry_goes_back_in_time(void **state)
{
    struct lab *lab = *state;
    struct history history = live(lab);
    FAILS(lab, try_restore(lab, history.times[1], "from", false), ERR_CONFLICT);
    assert_same_text(history.dumps[4], dump(lab, "from"));
    OK(lab, try_restore(lab, history.times[1], "from", true));
    assert_restored(lab, history.dumps[1], "from");
    assert_int_equal(lab->counts.blobs, 0); /* their bytes were there */
    (void)back_up(lab);                     /* it is who it was, and its backup goes on */
    restore(lab, history.times[3], "to");
    assert_restored(lab, history.dumps[3], "to");
    restore(lab, NOW, "to");
    assert_restored(lab, history.dumps[1], "to");
}

static void a_backup_is_of_one_registry(void **state)
{
    struct lab *lab = *state;
    (void)live(lab);
    registry_close(open_as(lab, "other", REGISTRY_SERVE));
    FAILS(lab, try_backup(lab, "other", true), ERR_CONFLICT);
    assert_non_null(strstr(lab->call.err.say, "another registry"));
    assert_int_equal(list_all(lab).n, STATES);
}

static void a_folder_of_something_else_is_left_alone(void **state)
{
    struct lab *lab = *state;
    struct registry *registry = open_as(lab, "from", REGISTRY_SERVE);
    fill(lab, registry);
    registry_close(registry);
    OK(lab, rename(lab_path(lab, "from"), lab_path(lab, "backup")));
    registry_close(open_as(lab, "from", REGISTRY_SERVE));
    const char *before = dump(lab, "backup");
    unsigned files = count_files(lab, "backup");
    uint64_t n;
    FAILS(lab, try_backup(lab, "from", true), ERR_CONFLICT);
    assert_non_null(strstr(lab->call.err.say, "is not a backup"));
    FAILS(lab, transfer_list(&lab->call, lab_path(lab, "backup"), list_one, NULL), ERR_NOT_FOUND);
    FAILS(lab, transfer_prune(&lab->call, lab_path(lab, "backup"), NOW, &lab->options, &n, &n),
          ERR_NOT_FOUND);
    FAILS(lab, transfer_verify(&lab->call, lab_path(lab, "backup"), &lab->options, &n),
          ERR_NOT_FOUND);
    FAILS(lab, try_restore(lab, NOW, "to", false), ERR_NOT_FOUND);
    assert_int_equal(count_files(lab, "backup"), files);
    assert_same_text(before, dump(lab, "backup"));
    /* Nor is a registry's database one of a backup, whatever its name. */
    OK(lab, rename(lab_path(lab, "backup/holdfast.db"), lab_path(lab, "backup/backup.db")));
    FAILS(lab, try_backup(lab, "from", true), ERR_UNSUPPORTED);
}

static void a_fresh_folder_may_be_there_already(void **state)
{
    struct lab *lab = *state;
    registry_close(open_as(lab, "from", REGISTRY_SERVE));
    OK(lab, mkdir(lab_path(lab, "backup"), 0750));
    OK(lab, mkdir(lab_path(lab, "backup/lost+found"), 0750));
    (void)back_up(lab);
    assert_int_equal(list_all(lab).n, 1);
    remove_folder(lab, "backup");
    auto_fd fd = open(lab_path(lab, "backup"), O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
    assert_true(fd >= 0);
    FAILS(lab, try_backup(lab, "from", true), ERR_IO);
}

static void one_writes_a_backup(void **state)
{
    struct lab *lab = *state;
    (void)live(lab);
    auto_fd fd = open(lab_path(lab, "backup/lock"), O_RDWR | O_CLOEXEC);
    OK(lab, flock(fd, LOCK_EX));
    uint64_t n;
    FAILS(lab, try_backup(lab, "from", true), ERR_BUSY);
    FAILS(lab, transfer_prune(&lab->call, lab_path(lab, "backup"), NOW, &lab->options, &n, &n),
          ERR_BUSY);
    assert_int_equal(verify(lab), 0); /* who reads does not wait */
    restore(lab, NOW, "to");
}

static void a_time_before_the_first_snapshot_is_an_error(void **state)
{
    struct lab *lab = *state;
    struct history history = live(lab);
    FAILS(lab, try_restore(lab, (struct wall_us){history.times[0].us - 1}, "to", false),
          ERR_NOT_FOUND);
    assert_non_null(strstr(lab->call.err.say, "--list"));
}

/* ---- Keeping ---- */

static void old_snapshots_are_forgotten(void **state)
{
    struct lab *lab = *state;
    struct history history = live(lab);
    uint64_t bytes;
    assert_int_equal(prune(lab, history.times[0], &bytes), 0); /* older, not as old */
    assert_int_equal(bytes, 0);
    assert_int_equal(prune(lab, history.times[3], &bytes), 3);
    assert_int_equal(bytes, 0); /* the fourth has all blobs of the first */
    assert_int_equal(list_all(lab).n, 2);
    assert_int_equal(verify(lab), 0);
    FAILS(lab, try_restore(lab, history.times[2], "to", false), ERR_NOT_FOUND);
    for (int i = 3; i < STATES; i++) {
        restore(lab, history.times[i], "to");
        assert_restored(lab, history.dumps[i], "to");
    }
    assert_string_equal(
        ask_sql(lab, "backup/backup.db", "SELECT count(*) FROM manifest WHERE gone IS NOT NULL"),
        "0\n");
}

static void bytes_that_no_snapshot_needs_are_removed(void **state)
{
    struct lab *lab = *state;
    struct history history = {0};
    struct registry *registry = open_as(lab, "from", REGISTRY_SERVE);
    struct oci_digest layer = oci_digest_of(HASH_SHA256, STR("layer first"));
    for (int i = 0; i < 3; i++) {
        change(lab, registry, &history, i);
        history.dumps[i] = dump(lab, "from");
        history.times[i] = back_up(lab);
    }
    registry_close(registry);
    uint64_t bytes;
    assert_int_equal(prune(lab, history.times[1], &bytes), 1);
    assert_int_equal(bytes, 0);
    assert_true(has_blob(lab, "backup", &layer));
    assert_int_equal(prune(lab, history.times[2], &bytes), 1);
    assert_int_equal(bytes, strlen("layer first") + strlen("{\"config\":\"first\"}"));
    assert_false(has_blob(lab, "backup", &layer));
    assert_int_equal(verify(lab), 0);
    restore(lab, NOW, "to");
    assert_restored(lab, history.dumps[2], "to");
    assert_int_equal(lab->counts.troubles, 0);
    assert_int_equal(prune(lab, NOW, &bytes), 0); /* the last one stays */
    assert_int_equal(list_all(lab).n, 1);
}

/* A clock that went back: what stays is not always what came last. */
static void a_snapshot_in_between_may_go(void **state)
{
    struct lab *lab = *state;
    struct history history = live(lab);
    run_sql(lab, "backup/backup.db",
            "UPDATE snapshot SET taken_at = CASE id WHEN 1 THEN 10 WHEN 2 THEN 30 WHEN 3 THEN 20"
            " ELSE id * 10 END");
    uint64_t bytes;
    assert_int_equal(prune(lab, (struct wall_us){25}, &bytes), 2);
    assert_int_equal(list_all(lab).n, 3);
    assert_int_equal(verify(lab), 0);
    restore(lab, (struct wall_us){30}, "to");
    assert_restored(lab, history.dumps[1], "to");
    restore(lab, (struct wall_us){40}, "to");
    assert_restored(lab, history.dumps[3], "to");
}

static void damage_is_found_and_what_is_lost_comes_again(void **state)
{
    struct lab *lab = *state;
    struct history history = live(lab);
    struct oci_digest missing = oci_digest_of(HASH_SHA256, STR("layer a"));
    struct oci_digest shortened = oci_digest_of(HASH_SHA256, STR("layer b"));
    struct oci_digest changed = oci_digest_of(HASH_SHA256, STR("layer untagged"));
    remove_blob(lab, "backup", &missing);
    replace_blob(lab, "backup", &shortened, "lay");
    replace_blob(lab, "backup", &changed, "LAYER untagged");
    assert_int_equal(verify(lab), 3);
    assert_true(was_told(lab, digest_text(lab, &missing)));
    assert_true(was_told(lab, digest_text(lab, &shortened)));
    assert_true(was_told(lab, digest_text(lab, &changed)));
    forget_troubles(lab);
    restore(lab, NOW, "to"); /* all but these */
    assert_int_equal(lab->counts.troubles, 3);
    (void)back_up(lab);
    assert_int_equal(lab->counts.blobs, 2);
    assert_int_equal(verify(lab), 1);
    remove_blob(lab, "backup", &changed);
    (void)back_up(lab);
    assert_int_equal(verify(lab), 0);
    restore(lab, NOW, "to");
    assert_restored(lab, history.dumps[4], "to");
}

static void damage_of_the_database_is_found(void **state)
{
    struct lab *lab = *state;
    (void)live(lab);
    run_sql(lab, "backup/backup.db",
            "UPDATE manifest SET content = x'7b7d' WHERE id = (SELECT min(id) FROM manifest)");
    assert_int_equal(verify(lab), 1);
    assert_true(was_told(lab, "manifest sha256:"));
    run_sql(lab, "backup/backup.db",
            "UPDATE blob SET stored = 0 WHERE digest = (SELECT min(digest) FROM blob)");
    assert_int_equal(verify(lab), 2);
    assert_true(was_told(lab, "a snapshot needs it"));
    (void)back_up(lab);
    assert_int_equal(verify(lab), 1);
    run_sql(lab, "backup/backup.db", "PRAGMA foreign_keys = OFF; DELETE FROM blob");
    assert_true(verify(lab) > 1);
    assert_true(was_told(lab, "the backup's database: "));
}

/* ---- Without bytes ---- */

/* The blobs of `from`, as if `to` were over the same store. */
static void share_blobs(struct lab *lab)
{
    struct registry *registry = open_as(lab, "to", REGISTRY_ALONE);
    registry_close(registry);
    remove_folder(lab, "to/blobs");
    OK(lab, rename(lab_path(lab, "from/blobs"), lab_path(lab, "to/blobs")));
}

static void a_snapshot_without_bytes_needs_them_in_place(void **state)
{
    struct lab *lab = *state;
    struct registry *registry = open_as(lab, "from", REGISTRY_SERVE);
    fill(lab, registry);
    registry_close(registry);
    OK(lab, try_backup(lab, "from", false));
    const char *expected = dump(lab, "from");
    assert_int_equal(lab->counts.blobs + lab->counts.present, 0);
    assert_int_equal(count_files(lab, "backup/blobs"), 0);
    assert_false(list_all(lab).snapshots[0].blobs);
    assert_int_equal(verify(lab), 0); /* nothing is missing that should be there */
    restore(lab, NOW, "elsewhere");
    assert_int_equal(lab->counts.troubles, 10); /* every blob */
    assert_string_equal(
        ask_sql(lab, "elsewhere/holdfast.db", "SELECT count(*) FROM repository_blob"), "0\n");
    share_blobs(lab);
    forget_troubles(lab);
    restore(lab, NOW, "to");
    assert_int_equal(lab->counts.troubles, 0);
    assert_int_equal(lab->counts.blobs, 0);
    assert_int_equal(lab->counts.present, 10);
    assert_restored(lab, expected, "to");
}

/* The bytes of an older snapshot are taken where they are. */
static void a_snapshot_without_bytes_may_follow_one_with_them(void **state)
{
    struct lab *lab = *state;
    struct registry *registry = open_as(lab, "from", REGISTRY_SERVE);
    fill(lab, registry);
    (void)back_up(lab);
    struct oci_digest layer = oci_digest_of(HASH_SHA256, STR("layer later"));
    (void)push_image(lab, registry, "later", "v1", "later");
    registry_close(registry);
    OK(lab, try_backup(lab, "from", false));
    assert_int_equal(verify(lab), 0);
    restore(lab, NOW, "to");
    assert_int_equal(lab->counts.troubles, 2);
    assert_true(was_told(lab, digest_text(lab, &layer)));
    (void)back_up(lab);
    assert_int_equal(lab->counts.blobs, 2);
    restore(lab, NOW, "to");
    assert_restored(lab, dump(lab, "from"), "to");
}

/* ---- What cannot be copied, and what is broken off ---- */

static void a_blob_that_is_lost_is_told_each_time(void **state)
{
    struct lab *lab = *state;
    struct registry *registry = open_as(lab, "from", REGISTRY_SERVE);
    fill(lab, registry);
    registry_close(registry);
    struct oci_digest missing = oci_digest_of(HASH_SHA256, STR("layer a"));
    remove_blob(lab, "from", &missing);
    for (unsigned i = 1; i <= 2; i++) {
        (void)back_up(lab);
        assert_int_equal(lab->counts.troubles, 1);
        assert_int_equal(lab->n_troubles, i);
    }
    assert_int_equal(verify(lab), 1);
}

static void a_stopped_backup_is_gone_on_with(void **state)
{
    struct lab *lab = *state;
    struct registry *registry = open_as(lab, "from", REGISTRY_SERVE);
    fill(lab, registry);
    for (unsigned after = 1; after <= 4; after++) {
        atomic_store(&lab->stop, false);
        lab->stop_after = after;
        FAILS(lab, try_backup(lab, "from", true), ERR_BUSY);
        assert_int_equal(list_all(lab).n, 0);
        /* It is another state that is taken then. */
        (void)push_image(lab, registry, "again", "latest",
                         str_printf(&lab->call.arena, "again %u", after).p);
        delete_manifest(lab, registry, "again", "latest");
    }
    registry_close(registry);
    atomic_store(&lab->stop, false);
    lab->stop_after = 0;
    (void)back_up(lab);
    assert_int_equal(list_all(lab).n, 1);
    assert_int_equal(verify(lab), 0);
    assert_string_equal(
        ask_sql(lab, "backup/backup.db", "SELECT count(*) FROM tag WHERE gone IS NOT NULL"), "0\n");
    for (unsigned after = 1; after <= 3; after++) {
        atomic_store(&lab->stop, false);
        lab->stop_after = after;
        FAILS(lab, try_restore(lab, NOW, "to", false), ERR_BUSY);
    }
    atomic_store(&lab->stop, false);
    lab->stop_after = 0;
    restore(lab, NOW, "to");
    assert_restored(lab, dump(lab, "from"), "to");
}

#ifdef HOLDFAST_TEST_HOOKS
static void backup_or_die(struct lab *lab)
{
    if (try_backup(lab, "from", true) < 0)
        _exit(1);
}

static void restore_or_die(struct lab *lab)
{
    if (try_restore(lab, NOW, "to", false) < 0)
        _exit(1);
}

static void prune_or_die(struct lab *lab)
{
    uint64_t bytes;
    (void)prune(lab, NOW, &bytes);
}

static void a_killed_backup_is_gone_on_with(void **state)
{
    static const char *const points[] = {"transfer.snapshot_begun", "transfer.applied:1",
                                         "transfer.applied:4",      "transfer.applied:7",
                                         "blob.synced:3",           "transfer.blob_stored:2",
                                         "transfer.blob_adopted:5", "transfer.snapshot_whole"};
    struct lab *lab = *state;
    struct registry *registry = open_as(lab, "from", REGISTRY_SERVE);
    fill(lab, registry);
    registry_close(registry);
    fill_many(lab, "from", 300, 1);
    const char *expected = dump(lab, "from");
    for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
        if (!crashes_at(lab, points[i], backup_or_die))
            fail_msg("not passed: %s", points[i]);
        assert_int_equal(list_all(lab).n, 0);
        (void)back_up(lab);
        assert_int_equal(count_files(lab, "backup/uploads"), 0);
        assert_int_equal(verify(lab), 0);
        assert_int_equal(list_all(lab).n, 1);
        restore(lab, NOW, "to");
        assert_restored(lab, expected, "to");
        remove_folder(lab, "to");
        remove_folder(lab, "backup");
    }
}

static void a_killed_restore_is_gone_on_with(void **state)
{
    static const char *const points[] = {"transfer.claimed", "transfer.blob_stored:3",
                                         "transfer.blob_adopted:6", "transfer.applied:2",
                                         "transfer.applied:6"};
    struct lab *lab = *state;
    (void)live(lab);
    fill_many(lab, "from", 300, 1);
    const char *expected = dump(lab, "from");
    (void)back_up(lab);
    for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
        if (!crashes_at(lab, points[i], restore_or_die))
            fail_msg("not passed: %s", points[i]);
        restore(lab, NOW, "to");
        assert_restored(lab, expected, "to");
        remove_folder(lab, "to");
    }
}

static void a_killed_prune_is_gone_on_with(void **state)
{
    static const char *const points[] = {"transfer.forgotten", "transfer.unstored",
                                         "transfer.deleted"};
    struct lab *lab = *state;
    struct oci_digest layer = oci_digest_of(HASH_SHA256, STR("layer first"));
    for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
        struct history history = {0};
        struct registry *registry = open_as(lab, "from", REGISTRY_SERVE);
        for (int step = 0; step < 3; step++) {
            change(lab, registry, &history, step);
            (void)back_up(lab);
        }
        registry_close(registry);
        if (!crashes_at(lab, points[i], prune_or_die))
            fail_msg("not passed: %s", points[i]);
        assert_int_equal(verify(lab), 0);
        assert_int_equal(list_all(lab).n, 1);
        uint64_t bytes;
        assert_int_equal(prune(lab, NOW, &bytes), 0);
        assert_false(has_blob(lab, "backup", &layer));
        assert_string_equal(
            ask_sql(lab, "backup/backup.db", "SELECT count(*) FROM blob WHERE stored = 0"), "0\n");
        assert_int_equal(count_files(lab, "backup/blobs"), 12);
        restore(lab, NOW, "to");
        assert_restored(lab, dump(lab, "from"), "to");
        remove_folder(lab, "to");
        remove_folder(lab, "from");
        remove_folder(lab, "backup");
    }
}
#endif

/* ---- Beside a server ---- */

static struct registry *served; /* while a backup of it is taken */

/* After each repository that was looked at, one behind it changes, and one before it. */
static void change_all(struct lab *lab, const char *stage)
{
    static unsigned n;
    if (strcmp(stage, "repositories") != 0)
        return;
    const char *seed = str_printf(&lab->call.arena, "meanwhile %u", n++).p;
    (void)push_image(lab, served, "team/app", "v1", seed);
    (void)push_image(lab, served, "zz", "latest", seed);
    (void)push_image(lab, served, "aa", "latest", seed);
}

static void nothing_that_comes_later_is_in_a_snapshot(void **state)
{
    struct lab *lab = *state;
    served = open_as(lab, "from", REGISTRY_SERVE);
    fill(lab, served);
    const char *expected[2] = {dump(lab, "from"), NULL};
    struct wall_us times[2];
    lab->meanwhile = change_all;
    times[0] = back_up(lab);
    expected[1] = dump(lab, "from");
    times[1] = back_up(lab);
    lab->meanwhile = NULL;
    registry_close(served);
    for (size_t i = 0; i < 2; i++) {
        restore(lab, times[i], "to");
        assert_restored(lab, expected[i], "to");
    }
}

struct pushing {
    struct lab lab; /* a call of its own */
    struct registry *registry;
    atomic_bool stop;
    unsigned pushed; /* images, each tagged with its number, in this order */
};

static void *push_one_after_the_other(void *context)
{
    struct pushing *pushing = context;
    struct lab *lab = &pushing->lab;
    for (unsigned i = 0; !atomic_load(&pushing->stop) && i < 2000; i++) {
        char seed[32];
        (void)snprintf(seed, sizeof(seed), "n%06u", i);
        (void)push_image(lab, pushing->registry, i % 2 == 0 ? "even" : "odd", seed, seed);
        pushing->pushed = i + 1;
        arena_done(&lab->call.arena);
    }
    return NULL;
}

/* Images come one after the other, so a snapshot that is of one moment has the first so many. */
static void a_snapshot_is_of_one_moment(void **state)
{
    struct lab *lab = *state;
    struct wall_us times[3];
    struct pushing pushing = {.registry = open_as(lab, "from", REGISTRY_SERVE)};
    call_init(&pushing.lab.call);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, push_one_after_the_other, &pushing), 0);
    for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
        (void)usleep(50000);
        times[i] = back_up(lab);
        assert_int_equal(lab->counts.troubles, 0);
    }
    atomic_store(&pushing.stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    call_done(&pushing.lab.call);
    registry_close(pushing.registry);
    assert_int_equal(verify(lab), 0);
    for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
        restore(lab, times[i], "to");
        (void)assert_sound(lab, "to"); /* no manifest without its blobs */
        assert_string_equal(
            ask_sql(lab, "to/holdfast.db",
                    "SELECT count(*) > 0, count(*) = 1 + CAST(substr(max(name), 2) AS INTEGER)"
                    " FROM tag"),
            "1 1\n");
        /* and all that was pushed before the snapshot's time; a push takes a moment */
        const char *sql = str_printf(&lab->call.arena,
                                     "SELECT name FROM tag WHERE updated_at < %lld ORDER BY name",
                                     (long long)times[i].us - 200000)
                              .p;
        assert_same_text(ask_sql(lab, "from/holdfast.db", sql),
                         ask_sql(lab, "to/holdfast.db", sql));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, lab_setup, lab_teardown)
        TEST(every_snapshot_is_restored_as_it_was),
        TEST(a_copy_goes_from_snapshot_to_snapshot),
        TEST(a_snapshot_adds_only_what_changed),
        TEST(a_repository_that_is_gone_is_gone_in_the_snapshot),
        TEST(a_registry_with_a_life_of_its_own_is_kept),
        TEST(a_registry_goes_back_in_time),
        TEST(a_backup_is_of_one_registry),
        TEST(a_folder_of_something_else_is_left_alone),
        TEST(a_fresh_folder_may_be_there_already),
        TEST(one_writes_a_backup),
        TEST(a_time_before_the_first_snapshot_is_an_error),
        TEST(old_snapshots_are_forgotten),
        TEST(bytes_that_no_snapshot_needs_are_removed),
        TEST(a_snapshot_in_between_may_go),
        TEST(damage_is_found_and_what_is_lost_comes_again),
        TEST(damage_of_the_database_is_found),
        TEST(a_snapshot_without_bytes_needs_them_in_place),
        TEST(a_snapshot_without_bytes_may_follow_one_with_them),
        TEST(a_blob_that_is_lost_is_told_each_time),
        TEST(a_stopped_backup_is_gone_on_with),
#ifdef HOLDFAST_TEST_HOOKS
        TEST(a_killed_backup_is_gone_on_with),
        TEST(a_killed_restore_is_gone_on_with),
        TEST(a_killed_prune_is_gone_on_with),
#endif
        TEST(nothing_that_comes_later_is_in_a_snapshot),
        TEST(a_snapshot_is_of_one_moment),
    };
    return cmocka_run_group_tests_name("transfer_backup", tests, NULL, NULL);
}
