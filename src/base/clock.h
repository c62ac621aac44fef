/* The one clock. Deadlines and durations are monotonic, stored times are UTC; the two types do not
 * mix. Builds with test hooks add $HOLDFAST_TEST_CLOCK_SHIFT seconds to the wall clock. */
#ifndef HOLDFAST_BASE_CLOCK_H
#define HOLDFAST_BASE_CLOCK_H

#include <stdint.h>

struct mono_us {
    int64_t us; /* microseconds since some point of this boot */
};
struct wall_us {
    int64_t us; /* microseconds since 1970-01-01T00:00:00Z */
};

#define CLOCK_SECOND_US INT64_C(1000000)

struct mono_us clock_mono(void);
struct wall_us clock_wall(void);

static inline int64_t clock_since_us(struct mono_us then)
{
    return clock_mono().us - then.us;
}

#define CLOCK_TEXT_BYTES 40
/* RFC 3339 in UTC with microseconds: 2026-01-02T03:04:05.678901Z */
void clock_format(struct wall_us t, char text[CLOCK_TEXT_BYTES]);

#endif
