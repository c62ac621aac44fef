/* jobs: work in the background that runs once, on any node, and again elsewhere when its node dies.
 *
 * A job is a row: kind, key, payload, when it is due. A node claims a due one by a lease, which its
 * own thread renews while it runs; a lease that runs out is claimed by another node. Who lost a
 * lease may still be running: each transaction by which a job takes effect asks job_hold first,
 * inside the transaction, which fails when the lease is no longer this one's. So it may be begun
 * twice, and takes effect once. What is not the same when it is done twice goes into one
 * transaction with job_finish, for a node may die between the effect and the end. A kind with an
 * interval is always there as one row, and due again that long after each end. Failures are told in
 * the log and tried again later, with growing delay: a second, twice as long after each time, never
 * above an hour or the kind's interval. Times and leases go by the database's clock. With the
 * database away nothing is begun; what runs learns by job_stopping when its lease has run out.
 * Threads: any. */
#ifndef HOLDFAST_JOBS_H
#define HOLDFAST_JOBS_H

#include "db/db.h"

struct jobs;
struct job; /* one that this node holds */

struct job_kind {
    const char *name; /* static: "uploads.expire" */
    int64_t every_us; /* 0: runs only when it is queued. The key of the row of such a kind is empty,
                         and queueing that brings it forward */
    /* 0, or -1 with call->err: then it is tried again later. Looks at job_stopping now and then. */
    int (*run)(struct call *call, void *context, struct job *job);
    void *context;
};

struct jobs_options {
    struct db *db;                /* borrowed */
    const struct job_kind *kinds; /* borrowed; rows of other kinds are left to other nodes */
    size_t n_kinds;               /* at most 16 */
    unsigned threads;             /* jobs that run at a time on this node */
    int64_t lease_us;
    int64_t look_us; /* how often to look for due jobs */
};

/* ret: owned. Errors: IO (threads), and those of the database. */
int jobs_start(const struct jobs_options *options, struct jobs **ret, struct err *err) MUST_CHECK;
/* Begins nothing any more and lets running jobs end, at most `limit_us`; then asks them to by
 * job_stopping and waits for them all the same. Those that fail after they were asked are given
 * back: due at once, for any node, as if they had not been begun. Takes NULL. */
void jobs_stop(struct jobs *jobs, int64_t limit_us);

/* Inside the caller's write transaction: queues a job of a kind, due at `when`. One of the same
 * kind and key that waits already is moved to the earlier of the two times, and takes the new
 * payload; one that runs is due again then, once, after its end. `key` is text of at most 1000
 * bytes, `payload` at most 1 MiB. Errors: TOO_LARGE, and those of the database. */
int jobs_queue(struct call *call, const char *kind, struct str key, struct str payload,
               struct wall_us when) MUST_CHECK;

/* borrowed */
struct str job_key(const struct job *job);
struct str job_payload(const struct job *job);
/* The server is stopping, or the lease is lost: end soon. */
bool job_stopping(const struct job *job);
/* Inside a write transaction by which the job takes effect, before what it changes is looked at: no
 * other node can take the job until that ends. Errors: CONFLICT (the lease is lost). */
int job_hold(struct call *call, const struct job *job) MUST_CHECK;
/* The same in the last such transaction, and with its commit the job is done: no crash comes in
 * between, after which the job would run, and take effect, once more. Then return 0. */
int job_finish(struct call *call, struct job *job) MUST_CHECK;

struct jobs_counts {
    uint64_t done;
    uint64_t failed;
    uint64_t lost; /* leases that ran out under a running job */
};
struct jobs_counts jobs_count(const struct jobs *jobs);

#endif
