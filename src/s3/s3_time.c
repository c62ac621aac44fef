#include "s3/s3_int.h"

static bool eat(struct str *s, struct str what)
{
    if (!str_starts(*s, what))
        return false;
    *s = str_from_at(*s, what.n);
    return true;
}

static bool eat_digits(struct str *s, size_t n, int *ret)
{
    struct str digits = str_first(*s, n);
    uint64_t value;
    if (digits.n != n || !str_eat_u64(&digits, 9999, &value) || digits.n > 0)
        return false;
    *s = str_from_at(*s, n);
    *ret = (int)value;
    return true;
}

static bool eat_clock(struct str *s, struct tm *t)
{
    return eat_digits(s, 2, &t->tm_hour) && eat(s, STR(":")) && eat_digits(s, 2, &t->tm_min) &&
           eat(s, STR(":")) && eat_digits(s, 2, &t->tm_sec);
}

static bool to_wall(struct tm *t, struct wall_us *ret)
{
    if (t->tm_year < 1970 || t->tm_mon < 0 || t->tm_mon > 11 || t->tm_mday < 1 || t->tm_mday > 31 ||
        t->tm_hour > 23 || t->tm_min > 59 || t->tm_sec > 60)
        return false;
    t->tm_year -= 1900;
    *ret = (struct wall_us){(int64_t)timegm(t) * CLOCK_SECOND_US};
    return true;
}

bool s3_time_parse(struct str text, struct wall_us *ret)
{
    struct tm t = {0};
    if (!eat_digits(&text, 4, &t.tm_year) || !eat(&text, STR("-")) ||
        !eat_digits(&text, 2, &t.tm_mon) || !eat(&text, STR("-")) ||
        !eat_digits(&text, 2, &t.tm_mday) || !eat(&text, STR("T")) || !eat_clock(&text, &t))
        return false;
    uint64_t fraction;
    if (eat(&text, STR(".")) && !str_eat_u64(&text, UINT64_MAX / 10, &fraction))
        return false;
    t.tm_mon--;
    return str_eq(text, STR("Z")) && to_wall(&t, ret);
}

bool s3_http_date_parse(struct str text, struct wall_us *ret)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct tm t = {0};
    (void)str_cut(&text, ' '); /* the day of the week */
    if (!eat_digits(&text, 2, &t.tm_mday) || !eat(&text, STR(" ")) || text.n < 3)
        return false;
    const char *month = memmem(months, sizeof(months) - 1, text.p, 3);
    t.tm_mon = month != NULL && (month - months) % 3 == 0 ? (int)(month - months) / 3 : -1;
    text = str_from_at(text, 3);
    return eat(&text, STR(" ")) && eat_digits(&text, 4, &t.tm_year) && eat(&text, STR(" ")) &&
           eat_clock(&text, &t) && str_eq(text, STR(" GMT")) && to_wall(&t, ret);
}
