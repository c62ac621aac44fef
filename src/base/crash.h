/* Named points at which a test stops the process, as kill -9 would. Only builds with
 * -Dtest_hooks=true contain them: $HOLDFAST_TEST_CRASH=name stops at the point of that name,
 * name:3 at its third passing. */
#ifndef HOLDFAST_BASE_CRASH_H
#define HOLDFAST_BASE_CRASH_H

#ifdef HOLDFAST_TEST_HOOKS
void crash_point(const char *name);
#else
static inline void crash_point(const char *name)
{
    (void)name;
}
#endif

#endif
