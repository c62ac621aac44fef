#include "base/crash.h"

#ifdef HOLDFAST_TEST_HOOKS
#include "base/err.h"
#include "base/num.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

void crash_point(const char *name)
{
    static atomic_ulong passed;
    const char *wanted = getenv("HOLDFAST_TEST_CRASH");
    if (wanted == NULL)
        return;
    struct str count = str_from(wanted);
    if (!str_eq(str_cut(&count, ':'), str_from(name)))
        return;
    uint64_t at = 1;
    struct err err;
    if (count.n > 0 && str_to_u64(count, 1000000, &at, &err) < 0)
        return;
    if (atomic_fetch_add(&passed, 1) + 1 == at)
        (void)kill(getpid(), SIGKILL);
}
#else
typedef int crash_points_are_not_built; /* a translation unit may not be empty */
#endif
