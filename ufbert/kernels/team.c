#define _POSIX_C_SOURCE 200809L /* clock_gettime, pthread_sigmask */
#include "team.h"

#include "dtypes.h"
#include "memory.h"
#include "system.h"

/* Longer than the shares of a step differ, or than the caller needs from one call to the next. Much shorter than the
 * system's time slices, which are milliseconds. */
static long spin_within = 50000, spin_between = 200000;

void ufbert_set_spinning(long within, long between) {
    spin_within = within;
    spin_between = between;
}

typedef struct {
    ufbert_work *work;
    void *argument;
    ptrdiff_t inside; /* helpers that were called and have not returned */
} job;

typedef struct helper {
    _Alignas(UFBERT_CACHE_LINE) job *next_job; /* NULL for none */
    int member, asleep;
    condition wake;
    struct helper *next; /* of the idle ones, or of a team */
} helper;

/* Idle helpers, the last one that worked first. The lock is of the list, and of all that sleep. */
static mutex lock = MUTEX_READY;
static condition progress = CONDITION_READY; /* a step or a call may be complete */
static ptrdiff_t sleepers;                   /* that wait for it */
static helper *idle;
static int num_helpers, watches_forks;

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int equals(const ptrdiff_t *counter, ptrdiff_t value) {
    return __atomic_load_n(counter, __ATOMIC_SEQ_CST) == value;
}

static void wait_until(const ptrdiff_t *counter, ptrdiff_t value) {
    if (equals(counter, value))
        return;
    const int64_t end = nanoseconds() + spin_within;
    do {
        for (int i = 0; i < 32; i++) {
            if (equals(counter, value))
                return;
            pause_briefly();
        }
    } while (nanoseconds() < end);
    take_mutex(&lock);
    __atomic_add_fetch(&sleepers, 1, __ATOMIC_SEQ_CST);
    while (!equals(counter, value))
        wait_for(&progress, &lock);
    __atomic_sub_fetch(&sleepers, 1, __ATOMIC_SEQ_CST);
    release_mutex(&lock);
}

/* After a counter has reached its value; the counter itself may be gone by now. */
static void wake_sleepers(void) {
    if (__atomic_load_n(&sleepers, __ATOMIC_SEQ_CST) == 0)
        return;
    take_mutex(&lock);
    wake_all(&progress);
    release_mutex(&lock);
}

void ufbert_finish(ufbert_step *step, ptrdiff_t count) {
    if (__atomic_add_fetch(&step->done, 1, __ATOMIC_SEQ_CST) == count)
        wake_sleepers();
}

void ufbert_await(ufbert_step *step, ptrdiff_t count) { wait_until(&step->done, count); }

static job *next_job(const helper *self) { return __atomic_load_n(&self->next_job, __ATOMIC_SEQ_CST); }

static void sleep_until_called(helper *self) {
    const int64_t end = nanoseconds() + spin_between;
    do {
        for (int i = 0; i < 32; i++) {
            if (next_job(self))
                return;
            pause_briefly();
        }
    } while (nanoseconds() < end);
    take_mutex(&lock);
    __atomic_store_n(&self->asleep, 1, __ATOMIC_SEQ_CST);
    while (!next_job(self))
        wait_for(&self->wake, &lock);
    __atomic_store_n(&self->asleep, 0, __ATOMIC_SEQ_CST);
    release_mutex(&lock);
}

/* Takes a helper's job from it: the helper itself, to do it, or the caller, who has done it alone. */
static job *take_job(helper *from) {
    job *found = next_job(from);
    const int taken =
        found && __atomic_compare_exchange_n(&from->next_job, &found, NULL, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return taken ? found : NULL;
}

THREAD help(void *argument) {
    helper *self = argument;
    for (;;) {
        sleep_until_called(self);
        job *mine = take_job(self);
        if (mine) {
            mine->work(mine->argument, self->member);
            __atomic_sub_fetch(&mine->inside, 1, __ATOMIC_SEQ_CST);
            wake_sleepers();
        }
    }
    return THREAD_END;
}

static void call(helper *one, job *task, int member) {
    one->member = member;
    __atomic_store_n(&one->next_job, task, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&one->asleep, __ATOMIC_SEQ_CST)) {
        take_mutex(&lock); /* it waits now, or will see its job */
        release_mutex(&lock);
        wake_one(&one->wake);
    }
}

#ifdef _WIN32
static int watch_forks(void) { return 1; } /* there are none */
#else
static void before_fork(void) { take_mutex(&lock); }

static void after_fork(void) { release_mutex(&lock); }

static void after_fork_in_child(void) {
    lock = (mutex)MUTEX_READY;
    progress = (condition)CONDITION_READY;
    sleepers = 0;
    idle = NULL; /* the parent's, which the child does not have */
    num_helpers = 0;
}

static int watch_forks(void) { return pthread_atfork(before_fork, after_fork, after_fork_in_child) == 0; }
#endif

/* NULL if the system does not give another thread. */
static helper *new_helper(void) {
    helper *made = ufbert_allocate_pages(sizeof *made);
    if (!made)
        return NULL;
    *made = (helper){.wake = CONDITION_READY};
    if (start_thread(help, made) != 0) {
        ufbert_free_pages(made);
        return NULL;
    }
    num_helpers++;
    return made;
}

/* Up to `count` helpers, in a list. */
static helper *borrow(int count) {
    helper *found = NULL;
    take_mutex(&lock);
    if (!watches_forks)
        watches_forks = watch_forks();
    for (int i = 0; i < count; i++) {
        helper *one = idle ? idle : num_helpers < count ? new_helper() : NULL;
        if (!one)
            break;
        if (one == idle)
            idle = one->next;
        one->next = found;
        found = one;
    }
    release_mutex(&lock);
    return found;
}

static void give_back(helper *team) {
    helper *last = team;
    while (last->next)
        last = last->next;
    take_mutex(&lock);
    last->next = idle;
    idle = team;
    release_mutex(&lock);
}

void ufbert_run_team(int threads, ufbert_work *work, void *argument) {
    helper *team = threads > 1 ? borrow(threads - 1) : NULL;
    job task = {work, argument, 0};
    for (helper *one = team; one; one = one->next)
        task.inside++;
    int member = 0;
    for (helper *one = team; one; one = one->next)
        call(one, &task, ++member);
    work(argument, 0);
    if (!team)
        return;
    for (helper *one = team; one; one = one->next)
        if (take_job(one))
            __atomic_sub_fetch(&task.inside, 1, __ATOMIC_SEQ_CST);
    wait_until(&task.inside, 0);
    give_back(team);
}
