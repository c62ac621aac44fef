/* The folder of a backup; into it and out of it. */
#include "transfer/backup_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

/* ---- The folder ---- */

static int folder_failed(struct err *err, const char *what, const char *folder)
{
    int number = errno;
    bool full = number == ENOSPC || number == EDQUOT;
    return err_set(err, full ? ERR_FULL : ERR_IO, "could not %s the backup's folder \"%s\": %s",
                   what, folder, strerrordesc_np(number));
}

/* Makes it, durably. */
static int make_folder(const char *folder, struct err *err)
{
    auto_arena arena = {0};
    if (mkdir(folder, 0750) < 0)
        return errno == EEXIST ? 0 : folder_failed(err, "make", folder);
    auto_fd parent =
        open(str_printf(&arena, "%s/..", folder).p, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return parent < 0 || fsync(parent) < 0 ? folder_failed(err, "make", folder) : 0;
}

static int lock_folder(const char *folder, int *ret_fd, struct err *err)
{
    auto_arena arena = {0};
    auto_fd fd = open(str_printf(&arena, "%s/lock", folder).p, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0)
        return folder_failed(err, "use", folder);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return err_set(err, ERR_BUSY, "the folder \"%s\" is in use by another holdfast process",
                       folder);
    *ret_fd = take_fd(&fd);
    return 0;
}

/* What a fresh file system has in it, and what a run left that was broken off before it came to
 * more. */
static bool is_nothing(const char *name)
{
    static const char *const names[] = {".", "..", "lost+found", "lock"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* A backup between the blobs of a registry would be taken for them, and they for its own. */
static int check_unused(const char *folder, struct err *err)
{
    DIR *dir = opendir(folder);
    if (dir == NULL)
        return folder_failed(err, "read", folder);
    const struct dirent *found = NULL;
    do
        found = readdir(dir);
    while (found != NULL && is_nothing(found->d_name));
    int done = found == NULL ? 0
                             : err_set(err, ERR_CONFLICT,
                                       "the folder \"%.160s\" is not a backup, it holds \"%.60s\"; "
                                       "name an empty one, or one that is not there yet",
                                       folder, found->d_name);
    (void)closedir(dir);
    return done;
}

static int take_folder(const char *folder, enum backup_use use, bool is_there, int *ret_lock_fd,
                       struct err *err)
{
    if (use == BACKUP_READ)
        return 0;
    if (!is_there && (make_folder(folder, err) < 0 || check_unused(folder, err) < 0))
        return -1;
    return lock_folder(folder, ret_lock_fd, err);
}

#define READERS 32

int backup_open(const char *folder, enum backup_use use, struct backup *ret, struct err *err)
{
    auto_arena arena = {0};
    struct backup backup = BACKUP_INIT;
    struct str path = str_printf(&arena, "%s/backup.db", folder);
    bool is_there = access(path.p, F_OK) == 0;
    if (!is_there && use != BACKUP_MAKE)
        return err_set(err, ERR_NOT_FOUND, "there is no backup in \"%s\"", folder);
    const struct db_options options = {
        .path = path.p, .readers = READERS, .busy_us = 10 * CLOCK_SECOND_US};
    if (take_folder(folder, use, is_there, &backup.lock_fd, err) < 0 ||
        db_open(&options, &backup.db, err) < 0 ||
        db_migrate(backup.db, backup_migrations, backup_n_migrations, err) < 0 ||
        blob_store_open_fs(folder, &backup.blobs, err) < 0) {
        backup_close(&backup);
        return -1;
    }
    *ret = backup;
    return 0;
}

void backup_close(struct backup *backup)
{
    blob_store_close(backup->blobs);
    db_close(backup->db);
    fd_close_auto(&backup->lock_fd);
    *backup = BACKUP_INIT;
}

/* ---- Taking a snapshot ---- */

struct beginning {
    struct str registry;
    const char *folder;
    struct wall_us time;
    bool blobs;
    int64_t id;
};

static int begin(struct call *call, void *context)
{
    struct beginning *beginning = context;
    struct str known;
    if (backup_source(call, &known) < 0)
        return -1;
    if (known.n > 0 && !str_eq(known, beginning->registry))
        return err_set(&call->err, ERR_CONFLICT,
                       "\"%s\" is the backup of another registry; choose another folder",
                       beginning->folder);
    if (known.n == 0 && backup_source_set(call, beginning->registry) < 0)
        return -1;
    return backup_snapshot_begin(call, beginning->time, beginning->blobs, &beginning->id);
}

static int end(struct call *call, void *context)
{
    const struct side *to = context;
    return backup_snapshot_end(call, to->snapshot);
}

static int read_source(struct side *from, struct str *ret_registry, struct meta_totals *ret_totals)
{
    struct call *call = &from->call;
    struct str origin;
    return side_freeze(from) < 0 || meta_identity(call, ret_registry, &origin) < 0 ||
                   meta_totals(call, ret_totals) < 0
               ? -1
               : 0;
}

static int store_page(struct work *work, const struct entry *blobs, size_t n, struct err *err)
{
    bool there[PAGE];
    return bytes_copy(work, blobs, n, there, err);
}

static int take_snapshot(struct work *work, struct beginning *beginning, struct err *err)
{
    struct side *from = work->from;
    struct side *to = work->to;
    struct meta_totals totals;
    beginning->time = clock_wall(); /* what is done by now is seen */
    if (read_source(from, &beginning->registry, &totals) < 0)
        return side_failed(from, err);
    if (db_transact(&to->call, to->db, begin, beginning) < 0)
        return side_failed(to, err);
    crash_point("transfer.snapshot_begun");
    to->snapshot = beginning->id;
    if (diff_all(work, totals.repositories, err) < 0)
        return -1;
    side_thaw(from); /* no longer than needed: it keeps the database from tidying up */
    if (beginning->blobs && backup_each_page(work, BACKUP_BLOBS_NEWEST, store_page, err) < 0)
        return -1;
    crash_point("transfer.snapshot_whole");
    if (db_transact(&to->call, to->db, end, to) < 0)
        return side_failed(to, err);
    return 0;
}

/* Nobody else writes here: what is staged is of a run that was broken off. */
static int drop_staged(void *context, struct str id, struct str stage, uint64_t size,
                       struct wall_us changed, struct err *err)
{
    (void)size;
    (void)changed;
    return blob_upload_discard(context, id, stage, STR(""), err);
}

int transfer_backup(struct call *call, struct registry *from, const char *folder, bool blobs,
                    const struct transfer_options *options, struct wall_us *ret_time,
                    struct transfer_counts *ret)
{
    static const struct blob_walk staged = {.upload = drop_staged};
    auto_backup backup = BACKUP_INIT;
    if (backup_open(folder, BACKUP_MAKE, &backup, &call->err) < 0 ||
        blob_walk(backup.blobs, &staged, backup.blobs, &call->err) < 0)
        return -1;
    auto_side source = {0};
    auto_side target = {0};
    side_init(&source, &side_registry, registry_db(from), registry_blobs(from));
    side_init(&target, &side_backup, backup.db, backup.blobs);
    /* A folder that nobody guards may have lost files. */
    struct work work = {.from = &source, .to = &target, .distrusts = true, WORK_INIT(options)};
    struct beginning beginning = {.folder = folder, .blobs = blobs};
    if (take_snapshot(&work, &beginning, &call->err) < 0)
        return -1;
    *ret_time = beginning.time;
    *ret = work.counts;
    return 0;
}

/* ---- Reading snapshots ---- */

int transfer_list(struct call *call, const char *folder, transfer_snapshot_fn each, void *context)
{
    auto_backup backup = BACKUP_INIT;
    if (backup_open(folder, BACKUP_READ, &backup, &call->err) < 0 ||
        db_read(backup.db, &call->db, &call->err) < 0)
        return -1;
    int done = backup_snapshot_each(call, each, context);
    db_end(TAKE(call->db));
    return done;
}

struct choice {
    struct wall_us when;
    int64_t id; /* 0: none yet */
    struct transfer_snapshot snapshot;
};

static void choose(void *context, int64_t id, const struct transfer_snapshot *snapshot)
{
    struct choice *choice = context;
    if (snapshot->time.us > choice->when.us)
        return;
    choice->id = id;
    choice->snapshot = *snapshot;
}

/* Who prunes the backup meanwhile does not change what is read of it. */
static int read_backup(struct side *from, struct choice *choice, struct str *ret_registry)
{
    struct call *call = &from->call;
    if (side_freeze(from) < 0 || backup_snapshot_each(call, choose, choice) < 0)
        return -1;
    if (choice->id == 0)
        return err_set(&call->err, ERR_NOT_FOUND,
                       "the backup has no snapshot of that time or before; see holdfast backup "
                       "--list");
    from->snapshot = choice->id;
    return backup_source(call, ret_registry);
}

static int restore(struct work *work, struct choice *choice, bool overwrite, struct err *err)
{
    struct str registry;
    if (read_backup(work->from, choice, &registry) < 0)
        return side_failed(work->from, err);
    if (side_claim(work->to, registry, /* in_place= */ true, overwrite, err) < 0)
        return -1;
    work->in_place = !choice->snapshot.blobs;
    return diff_all(work, choice->snapshot.repositories, err);
}

int transfer_restore(struct call *call, const char *folder, struct wall_us when,
                     struct registry *to, bool overwrite, const struct transfer_options *options,
                     struct wall_us *ret_time, struct transfer_counts *ret)
{
    auto_backup backup = BACKUP_INIT;
    if (backup_open(folder, BACKUP_READ, &backup, &call->err) < 0)
        return -1;
    auto_side source = {0};
    auto_side target = {0};
    side_init(&source, &side_backup, backup.db, backup.blobs);
    side_init(&target, &side_registry, registry_db(to), registry_blobs(to));
    struct work work = {.from = &source, .to = &target, .bytes_first = true, WORK_INIT(options)};
    struct choice choice = {.when = when};
    if (restore(&work, &choice, overwrite, &call->err) < 0)
        return -1;
    *ret_time = choice.snapshot.time;
    *ret = work.counts;
    return 0;
}
