/* What the server can say of itself and of its files. */
#include "db/db_postgres_int.h"

int postgres_ping(struct db_link *link, struct err *err)
{
    return postgres_command(link, "SELECT 1", err);
}

/* What the server noticed by itself: pages whose checksum was wrong when it read them. */
static int verify_checksums(struct db_link *link,
                            void (*report)(void *context, const char *complaint), void *context,
                            struct err *err)
{
    static const char sql[] =
        "SELECT CASE current_setting('data_checksums') WHEN 'on' THEN coalesce(checksum_failures, "
        "0)"
        " ELSE -1 END FROM pg_stat_database WHERE datname = current_database()";
    int64_t failures = 0;
    if (postgres_number(link, &(struct errand){.sql = sql}, &failures, err) < 0)
        return -1;
    if (failures < 0)
        log_say(LOG_LEVEL_INFO, "the database server keeps no checksums of its pages");
    if (failures > 0) {
        char text[160];
        (void)snprintf(text, sizeof(text),
                       "the database server has met %lld pages with a wrong checksum",
                       (long long)failures);
        report(context, text);
    }
    return 0;
}

/* Whether an index holds all rows of its table, in order. */
static int verify_index(struct db_link *link, const char *oid, const char *name,
                        void (*report)(void *context, const char *complaint), void *context,
                        struct err *err)
{
    const char *const values[] = {oid};
    struct errand errand = {
        .sql = "SELECT bt_index_check(CAST($1 AS oid), true)",
        .n = 1,
        .values = values,
    };
    PGresult *result = NULL;
    if (postgres_run(link, &errand, &result, err) == 0) {
        PQclear(result);
        return 0;
    }
    if (err->kind != ERR_CORRUPT)
        return -1;
    char text[700];
    (void)snprintf(text, sizeof(text), "index \"%s\": %s", name, err->why);
    report(context, text);
    return 0;
}

static int verify_indexes(struct db_link *link,
                          void (*report)(void *context, const char *complaint), void *context,
                          struct err *err)
{
    static const char sql_can[] =
        "SELECT coalesce(has_function_privilege("
        "to_regprocedure('bt_index_check(regclass,boolean)'), 'EXECUTE'), false)";
    static const char sql_list[] =
        "SELECT CAST(c.oid AS text), CAST(c.relname AS text) FROM pg_index i"
        " JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE a.amname = 'btree'"
        " AND n.nspname = current_schema() AND c.relpersistence = 'p' AND i.indisvalid"
        " ORDER BY c.relname";
    int64_t can = 0;
    if (postgres_number(link, &(struct errand){.sql = sql_can}, &can, err) < 0)
        return -1;
    if (can == 0)
        log_say(LOG_LEVEL_INFO, "the database's indexes are not checked: that needs its extension "
                                "amcheck, and the right to use it");
    if (can == 0)
        return 0;
    PGresult *list = NULL;
    if (postgres_run(link, &(struct errand){.sql = sql_list}, &list, err) < 0)
        return -1;
    int result = 0;
    for (int i = 0; i < PQntuples(list) && result == 0; i++)
        result = verify_index(link, PQgetvalue(list, i, 0), PQgetvalue(list, i, 1), report, context,
                              err);
    PQclear(list);
    return result;
}

int postgres_verify(struct db_link *link, void (*report)(void *context, const char *complaint),
                    void *context, struct err *err)
{
    link->patience_us = POSTGRES_SCHEMA_US;
    int result = postgres_command(link, "SELECT set_config('statement_timeout', '0', false)", err);
    if (result == 0)
        result = verify_checksums(link, report, context, err);
    if (result == 0)
        result = verify_indexes(link, report, context, err);
    postgres_link_drop(link); /* with the setting */
    link->patience_us = postgres_patience(link->server);
    return result;
}
