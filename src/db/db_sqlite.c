/* The SQLite engine.
 *
 * WAL: readers never wait for the writer. synchronous=FULL: a commit is one fdatasync of the log.
 * SQLite would write a full log back into the database in the middle of some unlucky commit; here
 * that is `tidy`, beside the writer. Temporary data stays in memory, because a service may have no
 * folder to write to but its own. */
#include "db/db_int.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <sqlite3.h>
#include <sys/stat.h>

/* "Hold", at offset 68 of the file: tells our database from that of another program. */
#define APPLICATION_ID 0x486f6c64

#define PARAMETERS_MAX 64
#define PATH_SHOWN 160 /* of a path in `say`, so that the advice behind it is not cut off */

/* In pages of the log (4 KiB). At TIDY it is written back beside the writer, and again each TIDY
 * further; from STOP on the writer is stopped for the last piece, so that the log starts over. */
#define WAL_PAGES_TIDY 2000
#define WAL_PAGES_STOP 8000

enum link_command { BEGIN, COMMIT, ROLLBACK, SAVE, RELEASE, UNDO, READ, TOUCH };
static const char *const commands[] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [SAVE] = "SAVEPOINT part",
    [RELEASE] = "RELEASE part",
    [UNDO] = "ROLLBACK TO part",
    [READ] = "BEGIN",
    [TOUCH] = "SELECT 1 FROM sqlite_schema LIMIT 1", /* takes the read lock, hence the state */
};

struct db_link {
    sqlite3 *sqlite; /* owned */
    enum db_role role;
    const char *path;                             /* borrowed from the options of db_open */
    sqlite3_stmt *prepared[ARRAY_SIZE(commands)]; /* owned; made when first used */
    int wal_pages;                                /* of the log after the last commit */
    int tidy_at;                                  /* pages */
    bool tidy_due;
};

struct db_cursor {
    struct db_link *link; /* borrowed */
    sqlite3_stmt *stmt;   /* owned */
    int bind_failure;     /* a result code, or SQLITE_OK */
    uint8_t n_parameters;
    uint8_t index[PARAMETERS_MAX]; /* SQLite's index of $1, $2 …: it numbers by appearance */
};

static enum err_kind kind_of(int code, int number)
{
    switch (code & 0xff) {
    case SQLITE_CONSTRAINT:
        switch (code) {
        case SQLITE_CONSTRAINT_UNIQUE:
        case SQLITE_CONSTRAINT_PRIMARYKEY:
        case SQLITE_CONSTRAINT_ROWID:
        case SQLITE_CONSTRAINT_FOREIGNKEY:
        case SQLITE_CONSTRAINT_TRIGGER:
            return ERR_CONFLICT;
        default: /* NOT NULL, CHECK: what we stored was not checked before */
            return ERR_INTERNAL;
        }
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
    case SQLITE_NOMEM:
        return ERR_BUSY;
    case SQLITE_FULL:
        return ERR_FULL;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
        return ERR_CORRUPT;
    case SQLITE_TOOBIG:
        return ERR_TOO_LARGE;
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_NOLFS:
        if (code == SQLITE_IOERR_NOMEM)
            return ERR_BUSY;
        return number == ENOSPC || number == EDQUOT || number == EFBIG ? ERR_FULL : ERR_IO;
    default:
        return ERR_INTERNAL;
    }
}

/* errno of the call that failed, when it was a call of the operating system; else 0. */
static int errno_of(struct db_link *link, int code)
{
    int primary = code & 0xff;
    bool called =
        primary == SQLITE_IOERR || primary == SQLITE_CANTOPEN || primary == SQLITE_READONLY;
    return called ? sqlite3_system_errno(link->sqlite) : 0;
}

static int failed(struct db_link *link, int code, const char *sql, struct err *err)
{
    int number = errno_of(link, code);
    enum err_kind kind = kind_of(code, number);
    (void)err_set(err, kind, "%s", db_say(kind));
    bool latest = sqlite3_extended_errcode(link->sqlite) == code;
    (void)err_why(err, "sqlite %d: %s", code,
                  latest ? sqlite3_errmsg(link->sqlite) : sqlite3_errstr(code));
    if (number != 0)
        (void)err_why(err, "%s", strerrordesc_np(number));
    return err_why(err, "\"%s\" in \"%.80s\"", link->path, sql);
}

static int prepare(struct db_link *link, const char *sql, sqlite3_stmt **ret, const char **ret_rest)
{
    return sqlite3_prepare_v3(link->sqlite, sql, -1, SQLITE_PREPARE_PERSISTENT, ret, ret_rest);
}

/* Runs a statement of our own. A row that it gives is of no interest. */
static int command(struct db_link *link, enum link_command which, struct err *err)
{
    sqlite3_stmt **stmt = &link->prepared[which];
    int code = *stmt == NULL ? prepare(link, commands[which], stmt, NULL) : SQLITE_OK;
    if (code == SQLITE_OK) {
        code = sqlite3_step(*stmt);
        if (code == SQLITE_ROW || code == SQLITE_DONE)
            code = SQLITE_OK;
    }
    int result = code == SQLITE_OK ? 0 : failed(link, code, commands[which], err);
    (void)sqlite3_reset(*stmt); /* repeats the failure */
    return result;
}

static bool in_transaction(struct db_link *link)
{
    return sqlite3_get_autocommit(link->sqlite) == 0;
}

static void roll_back(struct db_link *link)
{
    struct err err;
    /* What SQLite cannot roll back it has rolled back already. */
    if (command(link, ROLLBACK, &err) < 0)
        require(!in_transaction(link));
}

static int begin_read(struct db_link *link, struct err *err)
{
    if (command(link, READ, err) < 0)
        return -1;
    if (command(link, TOUCH, err) == 0)
        return 0;
    roll_back(link);
    return -1;
}

static int busy_ms(int64_t us)
{
    int64_t ms = (us + 999) / 1000;
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

static int begin(struct db_link *link, int64_t wait_us, struct err *err)
{
    (void)sqlite3_busy_timeout(link->sqlite, busy_ms(wait_us));
    return command(link, BEGIN, err);
}

static int commit(struct db_link *link, struct str notices, struct err *err)
{
    (void)notices; /* they stay in this process */
    if (command(link, COMMIT, err) == 0)
        return 0;
    if (in_transaction(link))
        roll_back(link);
    return -1;
}

static int save(struct db_link *link, struct err *err)
{
    return command(link, SAVE, err);
}

static int release(struct db_link *link, struct err *err)
{
    int broken = 0;
    int unused = 0;
    (void)sqlite3_db_status(link->sqlite, SQLITE_DBSTATUS_DEFERRED_FKS, &broken, &unused, 0);
    if (broken != 0)
        return failed(link, SQLITE_CONSTRAINT_FOREIGNKEY, commands[RELEASE], err);
    return command(link, RELEASE, err);
}

static int undo(struct db_link *link, struct err *err)
{
    if (command(link, UNDO, err) < 0)
        return -1;
    return command(link, RELEASE, err);
}

static int script(struct db_link *link, const char *sql, struct err *err)
{
    int code = sqlite3_exec(link->sqlite, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? 0 : failed(link, code, sql, err);
}

/* Finds $1 … $n, each at the index that SQLite gave it. */
static void number_parameters(struct db_cursor *cursor)
{
    int n = sqlite3_bind_parameter_count(cursor->stmt);
    require(n <= PARAMETERS_MAX);
    for (int i = 1; i <= n; i++) {
        const char *name = sqlite3_bind_parameter_name(cursor->stmt, i);
        uint64_t number = 0;
        struct err err;
        require(name != NULL && name[0] == '$' &&
                str_to_u64(str_from(name + 1), PARAMETERS_MAX, &number, &err) == 0 && number > 0);
        cursor->index[number - 1] = (uint8_t)i;
        if (number > cursor->n_parameters)
            cursor->n_parameters = (uint8_t)number;
    }
}

static int prepare_cursor(struct db_link *link, const char *sql, struct db_cursor **ret,
                          struct err *err)
{
    sqlite3_stmt *stmt = NULL;
    const char *rest = "";
    int code = prepare(link, sql, &stmt, &rest);
    if ((code & 0xff) == SQLITE_ERROR)
        db_broken(sqlite3_errmsg(link->sqlite), sql);
    if (code != SQLITE_OK)
        return failed(link, code, sql, err);
    if (stmt == NULL || rest[strspn(rest, "; \t\n")] != '\0')
        db_broken("not one statement", sql);
    struct db_cursor *cursor = mem_zalloc(sizeof(*cursor));
    cursor->link = link;
    cursor->stmt = stmt;
    number_parameters(cursor);
    *ret = cursor;
    return 0;
}

static void finalize(struct db_cursor *cursor)
{
    (void)sqlite3_finalize(cursor->stmt); /* repeats the failure of the last step */
    free(cursor);
}

static int index_of(const struct db_cursor *cursor, int parameter)
{
    require(parameter >= 1 && parameter <= cursor->n_parameters &&
            cursor->index[parameter - 1] != 0);
    return cursor->index[parameter - 1];
}

static void note_bound(struct db_cursor *cursor, int code)
{
    require(code != SQLITE_MISUSE && code != SQLITE_RANGE);
    if (code != SQLITE_OK)
        cursor->bind_failure = code;
}

/* A NULL pointer would bind NULL; an empty text is not that. */
static const char *never_null(struct str value)
{
    return value.p != NULL ? value.p : "";
}

static void bind_int(struct db_cursor *cursor, int parameter, int64_t value)
{
    note_bound(cursor, sqlite3_bind_int64(cursor->stmt, index_of(cursor, parameter), value));
}

static void bind_text(struct db_cursor *cursor, int parameter, struct str value)
{
    note_bound(cursor, sqlite3_bind_text64(cursor->stmt, index_of(cursor, parameter),
                                           never_null(value), value.n, SQLITE_STATIC, SQLITE_UTF8));
}

static void bind_blob(struct db_cursor *cursor, int parameter, struct str value)
{
    note_bound(cursor, sqlite3_bind_blob64(cursor->stmt, index_of(cursor, parameter),
                                           never_null(value), value.n, SQLITE_STATIC));
}

static int step(struct db_cursor *cursor, bool *ret_row, struct err *err)
{
    int code =
        cursor->bind_failure != SQLITE_OK ? cursor->bind_failure : sqlite3_step(cursor->stmt);
    if (code != SQLITE_ROW && code != SQLITE_DONE)
        return failed(cursor->link, code, sqlite3_sql(cursor->stmt), err);
    *ret_row = code == SQLITE_ROW;
    return 0;
}

static void reset(struct db_cursor *cursor)
{
    (void)sqlite3_reset(cursor->stmt); /* repeats the failure of the last step */
    (void)sqlite3_clear_bindings(cursor->stmt);
    cursor->bind_failure = SQLITE_OK;
}

static int64_t column_int(struct db_cursor *cursor, int column)
{
    return sqlite3_column_int64(cursor->stmt, column);
}

static struct str column_text(struct db_cursor *cursor, int column)
{
    const char *p = (const char *)sqlite3_column_text(cursor->stmt, column);
    return (struct str){p, (size_t)sqlite3_column_bytes(cursor->stmt, column)};
}

static struct str column_blob(struct db_cursor *cursor, int column)
{
    const char *p = sqlite3_column_blob(cursor->stmt, column);
    return (struct str){p, (size_t)sqlite3_column_bytes(cursor->stmt, column)};
}

static bool column_is_null(struct db_cursor *cursor, int column)
{
    return sqlite3_column_type(cursor->stmt, column) == SQLITE_NULL;
}

static int64_t changed(struct db_link *link)
{
    return sqlite3_changes64(link->sqlite);
}

static int ping(struct db_link *link, struct err *err)
{
    return command(link, TOUCH, err);
}

/* Calls `report` for each row of one check, as `describe` puts it. */
static int verify_with(struct db_link *link, const char *sql,
                       bool (*describe)(sqlite3_stmt *stmt, struct buf *complaint),
                       void (*report)(void *context, const char *complaint), void *context,
                       struct err *err)
{
    sqlite3_stmt *stmt = NULL;
    int code = prepare(link, sql, &stmt, NULL);
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(stmt);
        auto_buf complaint = BUF_INIT(4096);
        if (code == SQLITE_ROW && describe(stmt, &complaint))
            report(context, complaint.p);
    }
    int result = code == SQLITE_DONE ? 0 : failed(link, code, sql, err);
    (void)sqlite3_finalize(stmt);
    return result;
}

static const char *text_of(sqlite3_stmt *stmt, int column)
{
    const char *text = (const char *)sqlite3_column_text(stmt, column);
    return text != NULL ? text : "";
}

static bool describe_integrity(sqlite3_stmt *stmt, struct buf *complaint)
{
    buf_printf(complaint, "%.4000s", text_of(stmt, 0));
    return strcmp(complaint->p, "ok") != 0;
}

static bool describe_foreign_key(sqlite3_stmt *stmt, struct buf *complaint)
{
    buf_printf(complaint,
               "row %lld of table \"%.200s\" refers to a missing row of table \"%.200s\"",
               (long long)sqlite3_column_int64(stmt, 1), text_of(stmt, 0), text_of(stmt, 2));
    return true;
}

static int verify(struct db_link *link, void (*report)(void *context, const char *complaint),
                  void *context, struct err *err)
{
    if (verify_with(link, "PRAGMA integrity_check", describe_integrity, report, context, err) < 0)
        return -1;
    return verify_with(link, "PRAGMA foreign_key_check", describe_foreign_key, report, context,
                       err);
}

/* Called by SQLite after each commit, in place of its own checkpoint. */
static int note_wal(void *context, sqlite3 *sqlite, const char *schema, int pages)
{
    (void)sqlite;
    (void)schema;
    struct db_link *link = context;
    if (pages < link->wal_pages) /* it started over */
        link->tidy_at = WAL_PAGES_TIDY;
    link->wal_pages = pages;
    if (pages >= link->tidy_at) {
        link->tidy_at = pages + WAL_PAGES_TIDY;
        link->tidy_due = true;
    }
    return SQLITE_OK;
}

static bool wants_tidy(struct db_link *link)
{
    bool due = link->tidy_due;
    link->tidy_due = false;
    return due;
}

static int tidy(struct db_link *link, bool *ret_again, struct err *err)
{
    if (command(link, TOUCH, err) < 0) /* a connection that has read nothing knows of no log */
        return -1;
    int pages = 0;
    int written = 0;
    int code =
        sqlite3_wal_checkpoint_v2(link->sqlite, NULL, SQLITE_CHECKPOINT_PASSIVE, &pages, &written);
    if (code != SQLITE_OK && (code & 0xff) != SQLITE_BUSY)
        return failed(link, code, "checkpoint", err);
    *ret_again = pages >= WAL_PAGES_STOP;
    return 0;
}

static void disconnect(struct db_link *link)
{
    for (size_t i = 0; i < ARRAY_SIZE(link->prepared); i++)
        (void)sqlite3_finalize(link->prepared[i]);
    require(sqlite3_close(link->sqlite) == SQLITE_OK);
    free(link);
}

/* The operator's words for a failure at the start, when nothing is served yet. */
static int open_failed(struct db_link *link, int code, struct err *err)
{
    (void)failed(link, code, "open", err);
    if (link->role != DB_WRITER) /* made while we serve: clients read `say` */
        return -1;
    const char *reason = sqlite3_errmsg(link->sqlite);
    const char *path = link->path;
    switch (code & 0xff) {
    case SQLITE_NOTADB:
        (void)snprintf(
            err->say, sizeof(err->say),
            "\"%.*s\" is not a database, it was left untouched: move it away, or restore "
            "the database from a backup",
            PATH_SHOWN, path);
        break;
    case SQLITE_ERROR: /* a file format of the future, say: nothing else is asked at the start */
        err->kind = ERR_CORRUPT;
        __attribute__((fallthrough));
    case SQLITE_CORRUPT:
    case SQLITE_FORMAT:
        (void)snprintf(err->say, sizeof(err->say),
                       "database \"%.*s\" is damaged (%s): restore it from a backup", PATH_SHOWN,
                       path, reason);
        break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        (void)snprintf(err->say, sizeof(err->say),
                       "database \"%.*s\" is locked by another process: end that process first",
                       PATH_SHOWN, path);
        break;
    default:
        (void)snprintf(err->say, sizeof(err->say), "could not open database \"%.*s\": %s",
                       PATH_SHOWN, path, reason);
        break;
    }
    return -1;
}

static int path_failed(const char *what, const char *path, const char *advice, struct err *err)
{
    int number = errno;
    (void)err_sys(err, "%s \"%s\"", what, path);
    (void)snprintf(err->say, sizeof(err->say), "%s \"%.*s\": %s%s", what, PATH_SHOWN, path,
                   strerrordesc_np(number), advice);
    return -1;
}

/* SQLite says "unable to open database file" for all of these, or opens the file for reading only
 * and fails much later. A new file is made here, because it is nobody else's business to read. */
static int check_path(const char *path, struct err *err)
{
    auto_mem char *copy = mem_strdup(path);
    const char *folder = dirname(copy);
    if (faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) < 0)
        return path_failed("cannot write to the database's folder", folder,
                           " (this user must own it)", err);

    auto_fd fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0)
        return 0;
    if (errno != EEXIST)
        return path_failed("cannot create database", path, "", err);
    struct stat st;
    if (stat(path, &st) < 0)
        return path_failed("cannot read database", path, "", err);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_IO, "database \"%.*s\" is not a regular file", PATH_SHOWN, path);
    if (faccessat(AT_FDCWD, path, R_OK | W_OK, AT_EACCESS) < 0)
        return path_failed("cannot write to database", path, " (this user must own it)", err);
    return 0;
}

/* The first column of the first row, as a number. */
static int ask_int(struct db_link *link, const char *sql, int64_t *ret)
{
    sqlite3_stmt *stmt = NULL;
    int code = prepare(link, sql, &stmt, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(stmt);
    if (code == SQLITE_ROW)
        *ret = sqlite3_column_int64(stmt, 0);
    (void)sqlite3_finalize(stmt);
    return code == SQLITE_ROW ? SQLITE_OK : code;
}

/* Before anything is written: is it empty, or ours? The first statement reads the file. Ours has
 * the application id, or lost it in a dump and still has its version table. */
static int claim(struct db_link *link, struct err *err)
{
    int64_t tables = 0;
    int64_t id = 0;
    int64_t versioned = 0;
    int code = ask_int(link, "SELECT count(*) FROM sqlite_schema", &tables);
    if (code == SQLITE_OK)
        code = ask_int(link, "PRAGMA application_id", &id);
    if (code == SQLITE_OK)
        code = ask_int(link, "SELECT count(*) FROM sqlite_schema WHERE name = 'schema_version'",
                       &versioned);
    if (code != SQLITE_OK)
        return open_failed(link, code, err);
    if (id == APPLICATION_ID)
        return 0;
    if (id != 0 || (tables > 0 && versioned == 0))
        return err_set(
            err, ERR_CORRUPT,
            "\"%.*s\" is the database of another program, it was left untouched: move it "
            "away, or name another path",
            PATH_SHOWN, link->path);
    code =
        sqlite3_exec(link->sqlite, "PRAGMA auto_vacuum = NONE; PRAGMA application_id = 1215261796",
                     NULL, NULL, NULL);
    return code == SQLITE_OK ? 0 : open_failed(link, code, err);
}

static int use_wal(struct db_link *link, struct err *err)
{
    sqlite3_stmt *stmt = NULL;
    int code = prepare(link, "PRAGMA journal_mode = WAL", &stmt, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(stmt);
    bool wal = code == SQLITE_ROW && strcmp(text_of(stmt, 0), "wal") == 0;
    (void)sqlite3_finalize(stmt);
    if (code != SQLITE_ROW)
        return open_failed(link, code, err);
    if (!wal)
        return err_set(err, ERR_IO,
                       "database \"%.*s\": its file system has no shared memory files, as network "
                       "file systems often do not: use a local disk",
                       PATH_SHOWN, link->path);
    return 0;
}

/* Memory that SQLite counts is memory under one lock for all threads. */
static void configure_process(void)
{
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); /* refused, harmlessly, if it already runs */
}

static int open_handle(struct db_link *link, const struct db_options *options, struct err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    require(pthread_once(&once, configure_process) == 0);
    int code = sqlite3_open_v2(link->path, &link->sqlite,
                               SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX |
                                   SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_EXRESCODE,
                               NULL);
    require(link->sqlite != NULL); /* else memory is gone */
    if (code != SQLITE_OK)
        return open_failed(link, code, err);
    (void)sqlite3_busy_timeout(link->sqlite, busy_ms(options->busy_us));

    /* A file from elsewhere shall not run functions, nor "text" be taken for 'text'. */
    static const int off[] = {SQLITE_DBCONFIG_TRUSTED_SCHEMA, SQLITE_DBCONFIG_DQS_DML,
                              SQLITE_DBCONFIG_DQS_DDL};
    for (size_t i = 0; i < ARRAY_SIZE(off); i++)
        require(sqlite3_db_config(link->sqlite, off[i], 0, NULL) == SQLITE_OK);
    require(sqlite3_db_config(link->sqlite, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL) == SQLITE_OK);
    return 0;
}

static int set_up(struct db_link *link, const struct db_options *options, struct err *err)
{
    /* Caches are per connection and count in the idle process, so they are small; the kernel's
     * cache holds the rest. No mmap: each connection's mapping would count again. */
    static const char *const pragmas[] = {
        [DB_READER] =
            "PRAGMA query_only = ON; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -512",
        [DB_WRITER] = ("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
                       "PRAGMA temp_store = MEMORY; PRAGMA cache_size = -2048;"
                       "PRAGMA journal_size_limit = 67108864; PRAGMA secure_delete = FAST"),
        [DB_TIDIER] = ("PRAGMA synchronous = FULL; PRAGMA cache_size = -64;"
                       "PRAGMA journal_size_limit = 67108864"),
    };
    bool writer = link->role == DB_WRITER;
    if (writer && check_path(options->path, err) < 0)
        return -1;
    if (open_handle(link, options, err) < 0)
        return -1;
    if (writer && (claim(link, err) < 0 || use_wal(link, err) < 0))
        return -1;
    int code = sqlite3_exec(link->sqlite, pragmas[link->role], NULL, NULL, NULL);
    if (code != SQLITE_OK)
        return open_failed(link, code, err);
    (void)sqlite3_wal_hook(link->sqlite, note_wal, link);
    return 0;
}

static int connect_link(const struct db_options *options, struct db_server *server,
                        enum db_role role, struct db_link **ret, struct err *err)
{
    (void)server; /* there is none */
    struct db_link *link = mem_zalloc(sizeof(*link));
    link->path = options->path;
    link->role = role;
    link->tidy_at = WAL_PAGES_TIDY;
    if (set_up(link, options, err) < 0) {
        disconnect(link);
        return -1;
    }
    *ret = link;
    return 0;
}

const struct db_engine db_sqlite = {
    .find_schema = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'schema_version'",
    .connect = connect_link,
    .disconnect = disconnect,
    .begin_read = begin_read,
    .end_read = roll_back,
    .begin = begin,
    .commit = commit,
    .rollback = roll_back,
    .in_transaction = in_transaction,
    .save = save,
    .release = release,
    .undo = undo,
    .script = script,
    .prepare = prepare_cursor,
    .finalize = finalize,
    .bind_int = bind_int,
    .bind_text = bind_text,
    .bind_blob = bind_blob,
    .step = step,
    .reset = reset,
    .column_int = column_int,
    .column_text = column_text,
    .column_blob = column_blob,
    .column_is_null = column_is_null,
    .changed = changed,
    .ping = ping,
    .verify = verify,
    .wants_tidy = wants_tidy,
    .tidy = tidy,
};
