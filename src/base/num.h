/* Numbers from text, and sums that cannot wrap. */
#ifndef HOLDFAST_BASE_NUM_H
#define HOLDFAST_BASE_NUM_H

#include "base/err.h"
#include "base/str.h"

#include <stdint.h>

/* Decimal digits only, the whole of `s`, at most `max`. Errors: INVALID. */
int str_to_u64(struct str s, uint64_t max, uint64_t *ret, struct err *err) MUST_CHECK;
/* Reads digits from the front of `*s` and moves past them. False: no digit, or more than `max`. */
bool str_eat_u64(struct str *s, uint64_t max, uint64_t *ret);

/* False when the sum does not fit; then *ret is untouched. */
static inline bool num_add(uint64_t a, uint64_t b, uint64_t *ret)
{
    uint64_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *ret = sum;
    return true;
}

#endif
