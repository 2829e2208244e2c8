/* Memory that the next group of tokens will read, brought to the second cache bit by bit while this group is computed.
 *
 * Prefetches in one burst wait for each other; a few lines after each row's arithmetic cost next to nothing. They go to
 * the second cache: fetched to the first one directly, half as many lines are under way at a time. */
#ifndef UFBERT_PREFETCH_H
#define UFBERT_PREFETCH_H

#include "../dtypes.h"

enum { MOST_STRETCHES = 160 };

typedef struct {
    struct {
        const char *start;
        ptrdiff_t bytes;
    } stretches[MOST_STRETCHES];
    int count, next;
    ptrdiff_t offset; /* bytes of the next stretch that are fetched */
    ptrdiff_t total, bytes_a_row;
} fetch_plan;

INLINE void plan_nothing(fetch_plan *plan) {
    plan->count = plan->next = 0;
    plan->offset = plan->total = plan->bytes_a_row = 0;
}

INLINE void plan_fetch(fetch_plan *plan, const void *start, ptrdiff_t bytes) {
    if (plan->count == MOST_STRETCHES)
        return;
    plan->stretches[plan->count].start = start;
    plan->stretches[plan->count++].bytes = bytes;
    plan->total += bytes;
}

/* The same for memory that may begin and end within a cache line. */
INLINE void plan_lines(fetch_plan *plan, const void *start, ptrdiff_t bytes) {
    const ptrdiff_t before = (ptrdiff_t)((uintptr_t)start % UFBERT_CACHE_LINE);
    plan_fetch(plan, (const char *)start - before, bytes + before);
}

/* Everything planned is to be fetched by the time that so many rows have been multiplied or added. */
INLINE void spread_over(fetch_plan *plan, ptrdiff_t rows) {
    plan->bytes_a_row = (plan->total / (rows + 1) / UFBERT_CACHE_LINE + 1) * UFBERT_CACHE_LINE;
}

INLINE void prefetch_bytes(const char *start, ptrdiff_t bytes) {
    for (ptrdiff_t at = 0; at < bytes; at += UFBERT_CACHE_LINE)
        __builtin_prefetch(start + at, 0, 2);
}

/* To be called after each few rows. */
static void fetch_ahead(fetch_plan *plan, ptrdiff_t rows) {
    for (ptrdiff_t left = rows * plan->bytes_a_row; left > 0 && plan->next < plan->count;) {
        const ptrdiff_t rest = plan->stretches[plan->next].bytes - plan->offset, now = rest < left ? rest : left;
        prefetch_bytes(plan->stretches[plan->next].start + plan->offset, now);
        left -= now;
        plan->offset += now;
        if (now == rest) {
            plan->next++;
            plan->offset = 0;
        }
    }
}

#endif
