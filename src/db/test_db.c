/* What SQLite alone does; what all engines do is in test_db_common.c. */
#include "db/test_db.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/wait.h>

static const struct db_migration migrations[] = {
    {1,
     "CREATE TABLE parent (id INTEGER NOT NULL PRIMARY KEY, name TEXT UNIQUE);"
     "CREATE TABLE child (parent_id INTEGER NOT NULL REFERENCES parent (id));",
     NULL},
    {2,
     "ALTER TABLE parent ADD COLUMN data BLOB;"
     "INSERT INTO parent (id, name) VALUES (1, 'one');",
     NULL},
    {3, "CREATE TABLE later (x)", NULL},
};

static struct db *open_migrated(const struct fixture *f)
{
    struct db *db = open_db(f);
    struct err err = {0};
    assert_ok(db_migrate(db, migrations, ARRAY_SIZE(migrations), &err), err);
    return db;
}

static void settings_are_those_that_the_header_promises(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_db(f);
    auto_conn conn = NULL;
    assert_ok(db_write(db, &conn, &err), err);
    assert_int_equal(ask_in(conn, "PRAGMA synchronous"), 2); /* FULL, sqlite.org/pragma.html */
    assert_int_equal(ask_in(conn, "PRAGMA foreign_keys"), 1);
    {
        bool row = false;
        auto_stmt mode = db_stmt(conn, "PRAGMA journal_mode");
        assert_ok(db_step(mode, &row, &err), err);
        assert_true(str_eq(db_text(mode, 0), STR("wal")));
    }
    db_end(TAKE(conn));
    struct stat st;
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    db_close(db);
}

static void values_come_back_as_they_were_bound(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_migrated(f);
    auto_conn conn = NULL;
    assert_ok(db_write(db, &conn, &err), err);
    static const char all[] = "SELECT $2, $1, $3, $4, $5, typeof($3), typeof($4), typeof($5)";
    for (int round = 0; round < 2; round++) {
        bool row = false;
        auto_stmt stmt = db_stmt(conn, all);
        if (round == 0) {
            db_bind_int(stmt, 1, INT64_MIN);
            db_bind_text(stmt, 2, STR("a\0b"));
            db_bind_text(stmt, 3, (struct str){NULL, 0});
            db_bind_blob(stmt, 4, (struct str){NULL, 0});
        }
        assert_ok(db_step(stmt, &row, &err), err);
        assert_true(row);
        assert_int_equal(db_is_null(stmt, 0), round == 1);
        assert_true(str_eq(db_text(stmt, 0), round == 0 ? STR("a\0b") : STR("")));
        assert_true(db_int(stmt, 1) == (round == 0 ? INT64_MIN : 0));
        assert_int_equal(db_text(stmt, 2).n, 0);
        assert_int_equal(db_blob(stmt, 3).n, 0);
        assert_true(db_is_null(stmt, 4));
        assert_true(str_eq(db_text(stmt, 5), round == 0 ? STR("text") : STR("null")));
        assert_true(str_eq(db_text(stmt, 6), round == 0 ? STR("blob") : STR("null")));
        assert_true(str_eq(db_text(stmt, 7), STR("null")));
        assert_ok(db_step(stmt, &row, &err), err);
        assert_false(row);
        assert_ok(db_step(stmt, &row, &err), err); /* over stays over, it is not run again */
        assert_false(row);
    }
    db_end(TAKE(conn));
    db_close(db);
}

static void constraints_are_conflicts_and_the_transaction_lives_on(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_migrated(f);
    static const struct {
        const char *sql;
        enum err_kind kind;
    } broken[] = {
        {"INSERT INTO parent (id, name) VALUES (1, 'x')", ERR_CONFLICT},
        {"INSERT INTO parent (id, name) VALUES (2, 'one')", ERR_CONFLICT},
        {"INSERT INTO child (parent_id) VALUES (77)", ERR_CONFLICT},
        {"INSERT INTO child (parent_id) VALUES (NULL)", ERR_INTERNAL},
    };
    auto_conn conn = NULL;
    assert_ok(db_write(db, &conn, &err), err);
    assert_ok(db_run(db_stmt(conn, "INSERT INTO child (parent_id) VALUES (1)"), &err), err);
    assert_int_equal(db_changed(conn), 1);
    for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
        assert_int_equal(db_run(db_stmt(conn, broken[i].sql), &err), -1);
        assert_int_equal(err.kind, broken[i].kind);
        assert_null(strstr(err.say, "parent")); /* tables are not the client's business */
        assert_non_null(strstr(err.why, "INSERT"));
    }
    assert_ok(db_commit(TAKE(conn), &err), err);
    assert_int_equal(ask(db, "SELECT count(*) FROM child"), 1);
    db_close(db);
}

static void there_is_one_writer(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db_options options = options_for(f);
    options.busy_us = 50000;
    struct db *db = open_with(&options);
    auto_conn a = NULL;
    auto_conn b = NULL;
    assert_ok(db_write(db, &a, &err), err);
    assert_int_equal(db_write(db, &b, &err), -1);
    assert_int_equal(err.kind, ERR_BUSY);
    db_end(TAKE(a));
    assert_ok(db_write(db, &a, &err), err);
    db_end(TAKE(a));
    db_close(db);
}

/* Runs `sql` on a handle of its own in another process, which then waits to be told to end. */
struct other {
    pid_t pid;
    int pipe;
};

static struct other other_process(const char *path, const char *sql)
{
    int there[2];
    int back[2];
    assert_int_equal(pipe(there), 0);
    assert_int_equal(pipe(back), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    char byte = 0;
    if (pid == 0) {
        sqlite3 *sqlite = NULL;
        (void)close(there[1]);
        byte = sqlite3_open(path, &sqlite) == SQLITE_OK &&
                       sqlite3_exec(sqlite, sql, NULL, NULL, NULL) == SQLITE_OK
                   ? 'y'
                   : 'n';
        (void)!write(back[1], &byte, 1);
        (void)!read(there[0], &byte, 1); /* end of file: the parent has closed it */
        _exit(0);
    }
    (void)close(there[0]);
    (void)close(back[1]);
    assert_int_equal(read(back[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    (void)close(back[0]);
    return (struct other){pid, there[1]};
}

static void end_other(struct other *other)
{
    (void)close(other->pipe);
    assert_int_equal(waitpid(other->pid, NULL, 0), other->pid);
}

static void another_process_that_writes_makes_us_busy(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db_options options = options_for(f);
    options.busy_us = 100000;
    struct db *db = open_with(&options);
    assert_ok(db_migrate(db, migrations, 3, &err), err);

    struct other other = other_process(f->path, "BEGIN IMMEDIATE");
    struct mono_us begun = clock_mono();
    struct db_conn *conn = NULL;
    assert_int_equal(db_write(db, &conn, &err), -1);
    assert_int_equal(err.kind, ERR_BUSY);
    assert_true(clock_since_us(begun) >= options.busy_us / 2);
    assert_int_equal(ask(db, "SELECT count(*) FROM parent"), 1); /* reading goes on */
    end_other(&other);
    must(db, "INSERT INTO parent (id) VALUES (2)");
    db_close(db);
}

static void a_locked_database_is_not_opened(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db_options options = options_for(f);
    options.busy_us = 50000;
    struct db *db = NULL;
    struct other other = other_process(f->path, "BEGIN EXCLUSIVE; CREATE TABLE schema_version (x)");
    assert_int_equal(db_open(&options, &db, &err), -1);
    assert_int_equal(err.kind, ERR_BUSY);
    assert_non_null(strstr(err.say, f->path));
    assert_non_null(strstr(err.say, "another process"));
    end_other(&other);
    db_close(open_db(f));
}

static void write_file(const char *path, const void *p, size_t n, off_t at)
{
    auto_fd fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, p, n, at), n);
}

static size_t read_file(const char *path, char *p, size_t max)
{
    auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t n = read(fd, p, max);
    assert_true(n >= 0);
    return (size_t)n;
}

/* Refused, with `kind` and a text that names the file and says `advice`, and not touched. */
static void assert_refused(const struct fixture *f, enum err_kind kind, const char *advice)
{
    static char before[1 << 20];
    static char after[1 << 20];
    size_t n = read_file(f->path, before, sizeof(before));
    struct db_options options = options_for(f);
    struct db *db = NULL;
    struct err err = {0};
    assert_int_equal(db_open(&options, &db, &err), -1);
    assert_int_equal(err.kind, kind);
    assert_non_null(strstr(err.say, f->path));
    if (strstr(err.say, advice) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.say, advice);
    assert_int_equal(read_file(f->path, after, sizeof(after)), n);
    assert_memory_equal(before, after, n);
}

static void a_text_file_is_refused_and_left_alone(void **state)
{
    struct fixture *f = *state;
    write_file(f->path, "hello\n", 6, 0);
    assert_refused(f, ERR_CORRUPT, "not a database");
    for (off_t i = 0; i < 1000; i++)
        write_file(f->path, "not a database\n", 15, i * 15);
    assert_refused(f, ERR_CORRUPT, "not a database");
}

static void make_foreign(const char *path, const char *sql)
{
    sqlite3 *sqlite = NULL;
    assert_int_equal(sqlite3_open(path, &sqlite), SQLITE_OK);
    assert_int_equal(sqlite3_exec(sqlite, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(sqlite), SQLITE_OK);
}

static void the_database_of_another_program_is_left_alone(void **state)
{
    struct fixture *f = *state;
    make_foreign(f->path, "CREATE TABLE bookmarks (x); INSERT INTO bookmarks VALUES (1)");
    assert_refused(f, ERR_CORRUPT, "another program");
    make_foreign(f->path, "DROP TABLE bookmarks; PRAGMA application_id = 77");
    assert_refused(f, ERR_CORRUPT, "another program");
}

static void our_dump_is_ours_again(void **state)
{
    struct fixture *f = *state;
    make_foreign(f->path, "CREATE TABLE schema_version"
                          " (version INTEGER NOT NULL PRIMARY KEY, applied_at BIGINT NOT NULL)");
    struct db *db = open_migrated(f);
    assert_int_equal(ask(db, "SELECT count(*) FROM parent"), 1);
    db_close(db);
}

static void damaged_files_are_refused(void **state)
{
    struct fixture *f = *state;
    db_close(open_migrated(f));
    static char page[4096];
    memset(page, 0x5a, sizeof(page));
    write_file(f->path, page, 3996, 100); /* behind the header: the schema's b-tree */
    assert_refused(f, ERR_CORRUPT, "damaged");
    assert_int_equal(unlink(f->path), 0);

    db_close(open_migrated(f));
    assert_int_equal(truncate(f->path, 8192), 0);
    assert_refused(f, ERR_CORRUPT, "damaged");
    assert_int_equal(unlink(f->path), 0);

    db_close(open_migrated(f));
    write_file(f->path, "\0\0\0\x09", 4, 44); /* schema format number, fileformat2 section 1.3.9 */
    assert_refused(f, ERR_CORRUPT, "unsupported file format");
}

static void count_complaint(void *context, const char *complaint)
{
    assert_true(strlen(complaint) > 0);
    ++*(int *)context;
}

static void damage_inside_is_found_when_it_is_read_or_verified(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_migrated(f);
    int complaints = 0;
    must(db, "WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)"
             " INSERT INTO parent (id, name) SELECT i, 'name ' || i FROM n");
    assert_ok(db_verify(db, count_complaint, &complaints, &err), err);
    assert_int_equal(complaints, 0);
    int64_t root = ask(db, "SELECT rootpage FROM sqlite_schema WHERE name = 'parent'");
    db_close(db);

    static char page[4096];
    memset(page, 0xa5, sizeof(page));
    write_file(f->path, page, sizeof(page), (off_t)(root - 1) * 4096);
    db = open_db(f); /* it does not look at everything */
    auto_conn conn = NULL;
    assert_ok(db_read(db, &conn, &err), err);
    bool row = false;
    struct db_stmt *stmt = db_stmt(conn, "SELECT data FROM parent WHERE id = 4000");
    assert_int_equal(db_step(stmt, &row, &err), -1);
    assert_int_equal(err.kind, ERR_CORRUPT);
    assert_null(strstr(err.say, f->path));
    assert_int_equal(db_step(stmt, &row, &err), -1); /* and stays so until it is done */
    db_done(stmt);
    db_end(TAKE(conn));
    int result = db_verify(db, count_complaint, &complaints, &err);
    assert_true(complaints > 0 || (result < 0 && err.kind == ERR_CORRUPT));
    db_close(db);
}

static void verify_finds_rows_without_their_parent(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    db_close(open_migrated(f));
    make_foreign(f->path, "INSERT INTO child VALUES (5)"); /* its foreign keys are off */
    struct db *db = open_db(f);
    int complaints = 0;
    assert_ok(db_verify(db, count_complaint, &complaints, &err), err);
    assert_int_equal(complaints, 1);
    assert_ok(db_ping(db, &err), err);
    db_close(db);
}

static void assert_cannot_open(const char *path, const char *named)
{
    struct db_options options = {.path = path, .readers = 1, .busy_us = 0};
    struct db *db = NULL;
    struct err err = {0};
    assert_int_equal(db_open(&options, &db, &err), -1);
    assert_int_equal(err.kind, ERR_IO);
    assert_non_null(strstr(err.say, named));
}

static void paths_that_cannot_be_written_are_named(void **state)
{
    struct fixture *f = *state;
    char path[200];
    (void)snprintf(path, sizeof(path), "%s/missing/holdfast.db", f->folder);
    assert_cannot_open(path, "No such file or directory");
    assert_cannot_open(f->folder, "is not a regular file");

    assert_int_equal(mkfifo(f->path, 0600), 0);
    assert_cannot_open(f->path, "is not a regular file");
    assert_int_equal(unlink(f->path), 0);

    /* Root may write everywhere, so that somebody else has to try. */
    db_close(open_db(f));
    bool root = geteuid() == 0;
    assert_int_equal(chmod(f->folder, root ? 0755 : 0500), 0);
    assert_int_equal(root ? seteuid(65534) : 0, 0);
    assert_cannot_open(f->path, f->folder);
    assert_cannot_open(f->path, "Permission denied");
    assert_int_equal(root ? seteuid(0) : 0, 0);
    assert_int_equal(chmod(f->folder, 0777), 0);
    assert_int_equal(chmod(f->path, 0444), 0);
    assert_int_equal(root ? seteuid(65534) : 0, 0);
    assert_cannot_open(f->path, f->path);
    assert_int_equal(root ? seteuid(0) : 0, 0);
    assert_int_equal(chmod(f->path, 0600), 0);
}

static void a_full_database_says_so_and_goes_on_when_there_is_room(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_migrated(f);
    static const char insert[] = "INSERT INTO parent (id, data) VALUES (9, zeroblob(1000000))";
    auto_conn conn = NULL;
    assert_ok(db_write(db, &conn, &err), err);
    assert_true(ask_in(conn, "PRAGMA max_page_count = 50") > 0);
    db_end(TAKE(conn));
    assert_int_equal(change(db, insert, &err), -1);
    assert_int_equal(err.kind, ERR_FULL);
    must(db, "INSERT INTO parent (id) VALUES (8)");

    assert_ok(db_write(db, &conn, &err), err);
    assert_true(ask_in(conn, "PRAGMA max_page_count = 5000") > 0);
    db_end(TAKE(conn));
    must(db, insert);
    assert_int_equal(ask(db, "SELECT count(*) FROM parent"), 3);
    db_close(db);
}

static void clients_hear_nothing_of_the_path(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct db *db = open_migrated(f);
    struct db_conn *conn = NULL;
    char aside[160];
    (void)snprintf(aside, sizeof(aside), "%s-aside", f->path);
    assert_int_equal(rename(f->path, aside), 0);
    assert_int_equal(db_read(db, &conn, &err), -1); /* the first reader is made only now */
    assert_int_equal(err.kind, ERR_IO);
    assert_null(strstr(err.say, f->folder));
    assert_non_null(strstr(err.why, f->path));
    assert_int_equal(rename(aside, f->path), 0);
    assert_int_equal(ask(db, "SELECT count(*) FROM parent"), 1);
    db_close(db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(settings_are_those_that_the_header_promises),
        CASE(values_come_back_as_they_were_bound),
        CASE(constraints_are_conflicts_and_the_transaction_lives_on),
        CASE(there_is_one_writer),
        CASE(another_process_that_writes_makes_us_busy),
        CASE(a_locked_database_is_not_opened),
        CASE(a_text_file_is_refused_and_left_alone),
        CASE(the_database_of_another_program_is_left_alone),
        CASE(our_dump_is_ours_again),
        CASE(damaged_files_are_refused),
        CASE(damage_inside_is_found_when_it_is_read_or_verified),
        CASE(verify_finds_rows_without_their_parent),
        CASE(paths_that_cannot_be_written_are_named),
        CASE(a_full_database_says_so_and_goes_on_when_there_is_room),
        CASE(clients_hear_nothing_of_the_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
