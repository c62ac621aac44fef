/* Ends uploads that were broken off, on a thread of its own: what they staged is removed, and their
 * lease given back. Both ask other machines, and who lets go of an upload may be an event thread.
 */
#include "registry/registry_int.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

struct closer {
    pthread_t thread;
    _Atomic int64_t give_up_us; /* of clock_mono; see closer_give_up */
    pthread_mutex_t mutex;      /* guards what stands below */
    pthread_cond_t work;
    struct registry_upload *first;
    struct registry_upload **end; /* where the next one goes */
    bool stop;
};

static struct registry_upload *take(struct closer *closer)
{
    auto_lock held = lock_take(&closer->mutex);
    while (closer->first == NULL && !closer->stop)
        require(pthread_cond_wait(&closer->work, &closer->mutex) == 0);
    struct registry_upload *all = TAKE(closer->first);
    closer->end = &closer->first;
    return all;
}

/* Once they are given up they are only freed: leases run out by themselves, and what was staged is
 * found by its age. Returns how many were left so. */
static size_t end_all(const struct closer *closer, struct registry_upload *upload)
{
    size_t left = 0;
    while (upload != NULL) {
        struct registry_upload *next = upload->next;
        if (clock_mono().us >= closer->give_up_us) {
            upload->over = true;
            left++;
        }
        registry_upload_end(upload);
        upload = next;
    }
    return left;
}

static void *run(void *context)
{
    size_t left = 0;
    for (struct registry_upload *upload; (upload = take(context)) != NULL;)
        left += end_all(context, upload);
    if (left > 0)
        log_say(LOG_LEVEL_WARN, "uploads were left to expire", LOG_INT("uploads", (int64_t)left));
    return NULL;
}

int closer_start(struct closer **ret, struct err *err)
{
    struct closer *closer = mem_zalloc(sizeof(*closer));
    closer->end = &closer->first;
    closer->give_up_us = INT64_MAX;
    require(pthread_mutex_init(&closer->mutex, NULL) == 0);
    require(pthread_cond_init(&closer->work, NULL) == 0);
    sigset_t all; /* signals belong to the threads that wait for them */
    sigset_t before;
    (void)sigfillset(&all);
    require(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
    int failed = pthread_create(&closer->thread, NULL, run, closer);
    require(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    if (failed != 0) {
        free(closer);
        return err_set(err, ERR_IO, "could not start a thread for uploads: %s",
                       strerrordesc_np(failed));
    }
    (void)pthread_setname_np(closer->thread, "upload-closer");
    *ret = closer;
    return 0;
}

void closer_give_up(struct closer *closer, struct mono_us at)
{
    if (closer != NULL)
        closer->give_up_us = at.us;
}

void closer_stop(struct closer *closer)
{
    if (closer == NULL)
        return;
    {
        auto_lock held = lock_take(&closer->mutex);
        closer->stop = true;
        require(pthread_cond_signal(&closer->work) == 0);
    }
    require(pthread_join(closer->thread, NULL) == 0);
    (void)pthread_cond_destroy(&closer->work);
    (void)pthread_mutex_destroy(&closer->mutex);
    free(closer);
}

void closer_push(struct closer *closer, struct registry_upload *upload)
{
    auto_lock held = lock_take(&closer->mutex);
    upload->next = NULL;
    *closer->end = upload;
    closer->end = &upload->next;
    require(pthread_cond_signal(&closer->work) == 0);
}
