/* A mutex that is released where its scope ends. No I/O, no SQL and no call into another room
 * happens while one is held, unless the struct that owns the lock says so. */
#ifndef HOLDFAST_BASE_LOCK_H
#define HOLDFAST_BASE_LOCK_H

#include "base/mem.h"

#include <pthread.h>

static inline pthread_mutex_t *lock_take(pthread_mutex_t *mutex)
{
    require(pthread_mutex_lock(mutex) == 0);
    return mutex;
}
static inline void lock_release_auto(pthread_mutex_t **mutex)
{
    if (*mutex != NULL)
        require(pthread_mutex_unlock(*mutex) == 0);
}

/* auto_lock held = lock_take(&thing->mutex); */
#define auto_lock __attribute__((cleanup(lock_release_auto), unused)) pthread_mutex_t *

#endif
