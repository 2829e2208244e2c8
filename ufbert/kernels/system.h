/* Locks, threads and a clock: those of POSIX, or of Windows. Conditions may wake without a cause. */
#ifndef UFBERT_SYSTEM_H
#define UFBERT_SYSTEM_H

#include <stdint.h>

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

typedef SRWLOCK mutex;
typedef CONDITION_VARIABLE condition;
#define MUTEX_READY SRWLOCK_INIT
#define CONDITION_READY CONDITION_VARIABLE_INIT
static inline void take_mutex(mutex *m) { AcquireSRWLockExclusive(m); }
static inline void release_mutex(mutex *m) { ReleaseSRWLockExclusive(m); }
static inline void wait_for(condition *c, mutex *m) { SleepConditionVariableSRW(c, m, INFINITE, 0); }
static inline void wake_one(condition *c) { WakeConditionVariable(c); }
static inline void wake_all(condition *c) { WakeAllConditionVariable(c); }

#define THREAD static DWORD WINAPI
#define THREAD_END 0
static inline int start_thread(LPTHREAD_START_ROUTINE run, void *argument) {
    const HANDLE thread = CreateThread(NULL, 0, run, argument, 0, NULL);
    if (!thread)
        return -1;
    CloseHandle(thread);
    return 0;
}

static inline int64_t nanoseconds(void) {
    LARGE_INTEGER ticks, rate;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&rate);
    return ticks.QuadPart / rate.QuadPart * 1000000000 + ticks.QuadPart % rate.QuadPart * 1000000000 / rate.QuadPart;
}
#else
#include <pthread.h>
#include <signal.h>
#include <time.h>

typedef pthread_mutex_t mutex;
typedef pthread_cond_t condition;
#define MUTEX_READY PTHREAD_MUTEX_INITIALIZER
#define CONDITION_READY PTHREAD_COND_INITIALIZER
static inline void take_mutex(mutex *m) { pthread_mutex_lock(m); }
static inline void release_mutex(mutex *m) { pthread_mutex_unlock(m); }
static inline void wait_for(condition *c, mutex *m) { pthread_cond_wait(c, m); }
static inline void wake_one(condition *c) { pthread_cond_signal(c); }
static inline void wake_all(condition *c) { pthread_cond_broadcast(c); }

#define THREAD static void *
#define THREAD_END NULL
static inline int start_thread(void *(*run)(void *), void *argument) {
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    if (pthread_attr_init(&attributes) != 0)
        return -1;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all); /* signals are for the program's own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = pthread_create(&thread, &attributes, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return failed ? -1 : 0;
}

static inline int64_t nanoseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}
#endif

#endif
