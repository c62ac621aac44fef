#include "base/num.h"

bool str_eat_u64(struct str *s, uint64_t max, uint64_t *ret)
{
    uint64_t value = 0;
    size_t i = 0;
    for (; i < s->n && s->p[i] >= '0' && s->p[i] <= '9'; i++) {
        uint64_t digit = (uint64_t)(s->p[i] - '0');
        if (value > (max - digit) / 10 || digit > max)
            return false;
        value = value * 10 + digit;
    }
    if (i == 0)
        return false;
    *s = str_from_at(*s, i);
    *ret = value;
    return true;
}

int str_to_u64(struct str s, uint64_t max, uint64_t *ret, struct err *err)
{
    struct str rest = s;
    uint64_t value;
    if (!str_eat_u64(&rest, max, &value) || rest.n > 0)
        return err_set(err, ERR_INVALID, "\"" STR_FMT "\" is not a whole number from 0 to %llu",
                       STR_ARG(str_first(s, 40)), (unsigned long long)max);
    *ret = value;
    return 0;
}
