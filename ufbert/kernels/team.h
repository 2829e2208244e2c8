/* Threads that compute one call together.
 *
 * Whoever is there takes the next share of the work. So a call waits only for shares that someone has begun, never for
 * a thread that the system has not let run: on a busy machine one thread does it all. Waiting threads spin for some
 * microseconds and then sleep. The threads belong to the process, wait between calls, and are shared by all callers: who
 * finds none idle computes alone. A forked child begins with none, and starts its own. */
#ifndef UFBERT_TEAM_H
#define UFBERT_TEAM_H

#include <stddef.h>

/* What each member of a team does; member 0 is the caller. It must be complete, whoever of the others comes. */
typedef void ufbert_work(void *argument, int member);

/* Runs work in the caller and in up to `threads` - 1 idle threads; returns when all that began have returned. */
typedef void ufbert_team(int threads, ufbert_work *work, void *argument);
ufbert_team ufbert_run_team;

/* How long threads spin, in nanoseconds: for each other within a call, and for the next call. */
void ufbert_set_spinning(long within, long between);

/* A step of a team's work: shares that its members take, all of which must be done before the next step. */
typedef struct {
    ptrdiff_t next, done;
} ufbert_step;

/* The share to do next; there is none left if it is not below the number of shares. */
static inline ptrdiff_t ufbert_take(ufbert_step *step) { return __atomic_fetch_add(&step->next, 1, __ATOMIC_RELAXED); }

/* Whether one may take some of `count` shares. */
static inline int ufbert_some_left(const ufbert_step *step, ptrdiff_t count) {
    return __atomic_load_n(&step->next, __ATOMIC_RELAXED) < count;
}

/* One of `count` shares is done. */
void ufbert_finish(ufbert_step *step, ptrdiff_t count);

/* Waits until all `count` shares are done. */
void ufbert_await(ufbert_step *step, ptrdiff_t count);

/* What is done of each share, by that member. */
typedef void ufbert_share_work(void *argument, ptrdiff_t share, int member);

typedef struct {
    ufbert_step step;
    ptrdiff_t count;
    ufbert_share_work *work;
    void *argument;
} ufbert_sharing;

static inline void ufbert_take_shares(void *sharing, int member) {
    ufbert_sharing *all = sharing;
    for (ptrdiff_t share = ufbert_take(&all->step); share < all->count; share = ufbert_take(&all->step))
        all->work(all->argument, share, member);
}

/* `count` shares, each done by one member of a team. */
static inline void ufbert_share(ufbert_team *run, int threads, ptrdiff_t count, ufbert_share_work *work,
                                void *argument) {
    ufbert_sharing all = {{0, 0}, count, work, argument};
    if (threads > 1 && count > 1)
        run(threads < count ? threads : (int)count, ufbert_take_shares, &all);
    else
        ufbert_take_shares(&all, 0);
}

#endif
