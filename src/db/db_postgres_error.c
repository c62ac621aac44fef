/* The server's codes (SQLSTATE; PostgreSQL's appendix A) in our words. */
#include "db/db_postgres_int.h"

#include <ctype.h>

const char *postgres_code(const PGresult *failure)
{
    const char *code = PQresultErrorField(failure, PG_DIAG_SQLSTATE);
    return code != NULL ? code : "";
}

static bool starts(const char *code, const char *with)
{
    return strncmp(code, with, strlen(with)) == 0;
}

/* The longest beginnings stand first. */
static const struct {
    const char *code;
    enum err_kind kind;
} kinds[] = {
    {"22021", ERR_INVALID}, /* bytes that are not UTF-8, or zero in a text */
    {"22P05", ERR_INVALID}, /* a character that the database's encoding lacks */
    {"22001", ERR_TOO_LARGE},
    {"23502", ERR_INTERNAL}, /* NOT NULL, CHECK: what we stored was not checked before */
    {"23514", ERR_INTERNAL},
    {"23", ERR_CONFLICT},
    {"25006", ERR_BUSY}, /* a standby by now: the next connection finds the new primary */
    {"40003", ERR_UNSURE},
    {"40", ERR_AGAIN},
    {"42501", ERR_IO}, /* privileges, which are the operator's */
    {"53100", ERR_FULL},
    {"53", ERR_BUSY},
    {"54", ERR_TOO_LARGE},
    {"55P03", ERR_AGAIN}, /* lock_timeout */
    {"57", ERR_BUSY},     /* statement_timeout; the server is ending, or starting */
    {"58", ERR_IO},
    {"XX000", ERR_IO},
    {"XX", ERR_CORRUPT},
    {"08P01", ERR_INTERNAL},
    {"08", ERR_BUSY},
};

enum err_kind postgres_kind(const char *code)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (starts(code, kinds[i].code))
            return kinds[i].kind;
    return ERR_INTERNAL;
}

void postgres_words(const char *message, char *text, size_t size)
{
    size_t n = 0;
    const char *place = strstr(message, "\nLOCATION:");
    const char *end = place != NULL ? place : message + strlen(message);
    for (const char *p = message; p < end && n + 1 < size; p++) {
        bool space = isspace((unsigned char)*p) || iscntrl((unsigned char)*p);
        if (!space)
            text[n++] = *p;
        else if (n > 0 && text[n - 1] != ' ')
            text[n++] = ' ';
    }
    while (n > 0 && text[n - 1] == ' ')
        n--;
    text[n] = '\0';
}

int postgres_failed(const PGresult *failure, enum err_kind kind, const char *sql, struct err *err)
{
    char text[240];
    const char *message = PQresultErrorField(failure, PG_DIAG_MESSAGE_PRIMARY);
    postgres_words(message != NULL ? message : PQresultErrorMessage(failure), text, sizeof(text));
    (void)err_set(err, kind, "%s", db_say(kind));
    return err_why(err, "postgres %s: %s, in \"%.100s\"", postgres_code(failure), text, sql);
}
