#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int64_t read_clock(clockid_t id)
{
    struct timespec t;
    (void)clock_gettime(id, &t);
    return (int64_t)t.tv_sec * CLOCK_SECOND_US + t.tv_nsec / 1000;
}

struct mono_us clock_mono(void)
{
    return (struct mono_us){read_clock(CLOCK_MONOTONIC)};
}

#ifdef HOLDFAST_TEST_HOOKS
#include "base/err.h"
#include "base/num.h"
static int64_t shift_us(void)
{
    const char *text = getenv("HOLDFAST_TEST_CLOCK_SHIFT");
    struct err err;
    uint64_t seconds = 0;
    if (text == NULL || str_to_u64(str_from(text), 1000000000, &seconds, &err) < 0)
        return 0;
    return (int64_t)seconds * CLOCK_SECOND_US;
}
#else
static int64_t shift_us(void)
{
    return 0;
}
#endif

struct wall_us clock_wall(void)
{
    return (struct wall_us){read_clock(CLOCK_REALTIME) + shift_us()};
}

void clock_format(struct wall_us t, char text[CLOCK_TEXT_BYTES])
{
    time_t seconds = (time_t)(t.us / CLOCK_SECOND_US);
    struct tm parts;
    (void)gmtime_r(&seconds, &parts);
    char date[24];
    (void)strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &parts);
    (void)snprintf(text, CLOCK_TEXT_BYTES, "%s.%06dZ", date, (int)(t.us % CLOCK_SECOND_US));
}
