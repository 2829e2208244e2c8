/* The two operations on rows of trees that everything is made of: dot products of rows with tokens, and weighted sums of
 * several rows. Both fix the order of every addition by position alone. Rows of int8 are multiplied as whole numbers; who
 * calls multiplies with their scales. */
#ifndef UFBERT_ROWS_H
#define UFBERT_ROWS_H

#include "../vectors.h"
#include "fff.h"
#include "prefetch.h"

enum {
    HALF_BLOCK = UFBERT_BLOCK / 2,
    EACH_AT_ONCE = 4,
    LONG_ROW = 4096,          /* elements, from which on the processor's own prefetcher falls behind */
    FETCH_BYTES_AHEAD = 2048, /* in long rows */
};

/* Two vectors of a row: at element `at` of the first and of the second half of a block. */
INLINE void load_row(const ufbert_dtype dtype, const char *row, ptrdiff_t block, int at, vec *low, vec *high) {
    const ptrdiff_t first = block * UFBERT_BLOCK + at;
    if (dtype == UFBERT_BF16) {
        const vec words = v_once(v_load_words((const uint16_t *)row + block * UFBERT_BLOCK + 2 * at));
        *low = v_low_bf16(words);
        *high = v_high_bf16(words);
    } else if (dtype == UFBERT_INT8) {
        *low = v_load_int8((const int8_t *)row + first);
        *high = v_load_int8((const int8_t *)row + first + HALF_BLOCK);
    } else {
        *low = v_load((const float *)row + first);
        *high = v_load((const float *)row + first + HALF_BLOCK);
    }
}

/* The same in the last, incomplete block, which has `left` elements. Rows that are not float32 are filled up. */
INLINE void load_row_part(const ufbert_dtype dtype, const char *row, ptrdiff_t block, int at, ptrdiff_t left, vec *low,
                          vec *high) {
    if (dtype == UFBERT_F32) {
        const float *floats = (const float *)row + block * UFBERT_BLOCK + at;
        *low = v_load_part(floats, left - at);
        *high = v_load_part(floats + HALF_BLOCK, left - HALF_BLOCK - at);
    } else {
        load_row(dtype, row, block, at, low, high);
    }
}

/* dots[t] = rows[t] . xs[t] for `count` tokens, a constant; `shared`: rows[0] is the row of all, whose vectors are loaded
 * once. Each dot product has one vector of sums for the first halves of the blocks and one for the second halves,
 * whatever `count` is; several tokens hide the latency of the additions. Unless `copies` is NULL, xs[t] is copied to
 * copies[t]. */
INLINE void dot_unrolled(const int count, const int shared, const int long_rows, const ufbert_dtype dtype,
                         const char *const *rows, const float *const *xs, ptrdiff_t n, float *dots,
                         float *const *copies) {
    const ptrdiff_t blocks = n / UFBERT_BLOCK, left = n % UFBERT_BLOCK;
    const ptrdiff_t block_bytes = UFBERT_BLOCK * (ptrdiff_t)ufbert_item_size(dtype);
    vec low[TOKENS_AT_ONCE], high[TOKENS_AT_ONCE], first, second;
#pragma GCC unroll 8
    for (int t = 0; t < count; t++)
        low[t] = high[t] = v_set(0.0f);
    for (ptrdiff_t block = 0; block < blocks; block++) {
        if (long_rows)
            for (int t = 0; t < count; t++)
                prefetch_bytes(rows[t] + block * block_bytes + FETCH_BYTES_AHEAD, block_bytes);
#pragma GCC unroll 8
        for (int at = 0; at < HALF_BLOCK; at += LANES)
#pragma GCC unroll 8
            for (int t = 0; t < count; t++) {
                if (t == 0 || !shared)
                    load_row(dtype, rows[t], block, at, &first, &second);
                const ptrdiff_t place = block * UFBERT_BLOCK + at;
                const vec x = v_load(xs[t] + place), other = v_load(xs[t] + place + HALF_BLOCK);
                low[t] = v_fma(first, x, low[t]);
                high[t] = v_fma(second, other, high[t]);
                if (copies) {
                    v_store(copies[t] + place, x);
                    v_store(copies[t] + place + HALF_BLOCK, other);
                }
            }
    }
    if (left)
        for (int at = 0; at < HALF_BLOCK; at += LANES)
#pragma GCC unroll 8
            for (int t = 0; t < count; t++) {
                const ptrdiff_t place = blocks * UFBERT_BLOCK + at;
                const vec x = v_load_part(xs[t] + place, left - at);
                const vec other = v_load_part(xs[t] + place + HALF_BLOCK, left - HALF_BLOCK - at);
                if (t == 0 || !shared)
                    load_row_part(dtype, rows[t], blocks, at, left, &first, &second);
                low[t] = v_fma(first, x, low[t]);
                high[t] = v_fma(second, other, high[t]);
                if (copies) {
                    v_store_part(copies[t] + place, x, left - at);
                    v_store_part(copies[t] + place + HALF_BLOCK, other, left - HALF_BLOCK - at);
                }
            }
#pragma GCC unroll 8
    for (int t = 0; t < count; t++)
        dots[t] = v_sum(v_add(low[t], high[t]));
}

INLINE void dot_shared(const ufbert_dtype dtype, const char *row, const float *const *xs, int count, ptrdiff_t n,
                       float *dots) {
#define CALL(constant) dot_unrolled(constant, 1, 0, dtype, &row, xs, n, dots, NULL)
    SWITCH_TOKENS(count, CALL)
#undef CALL
}

/* dots[t] = row . xs[t] for 1 to TOKENS_AT_ONCE tokens. */
static void dot_rows(ufbert_dtype dtype, const char *row, const float *const *xs, int count, ptrdiff_t n, float *dots){
#define CALL(constant) dot_shared(constant, row, xs, count, n, dots)
    SWITCH_DTYPE(dtype, CALL)
#undef CALL
}

INLINE
    void dot_few(const ufbert_dtype dtype, const char *const *rows, const float *const *xs, ptrdiff_t n, float *dots) {
    if (n > LONG_ROW)
        dot_unrolled(EACH_AT_ONCE, 0, 1, dtype, rows, xs, n, dots, NULL);
    else
        dot_unrolled(EACH_AT_ONCE, 0, 0, dtype, rows, xs, n, dots, NULL);
}

/* dots[t] = rows[t] . xs[t] for tokens that share no row: the same sums in the same order. */
static void dot_each(ufbert_dtype dtype, const char *const *rows, const float *const *xs, int count, ptrdiff_t n,
                     float *dots) {
    for (; count >= EACH_AT_ONCE; count -= EACH_AT_ONCE) {
#define CALL(constant) dot_few(constant, rows, xs, n, dots)
        SWITCH_DTYPE(dtype, CALL)
#undef CALL
        rows += EACH_AT_ONCE;
        xs += EACH_AT_ONCE;
        dots += EACH_AT_ONCE;
    }
    for (int t = 0; t < count; t++)
        dot_rows(dtype, rows[t], xs + t, 1, n, dots + t);
}

enum { START_AT_ZERO, START_AT_Y };       /* what a weighted sum is added to */
enum { THROUGH_CACHES, PAST_THE_CACHES }; /* how it is stored */

/* Columns of `panel` blocks from `block` on: y = start + sum over r of coefs[r] * rows[r], summed in registers. Of int8
 * rows that is multiplied with `factors`, unless these are NULL. */
INLINE void mix_panel(const int panel, const ufbert_dtype dtype, const int start, const int past, float *y,
                      const char *const *rows, const float *coefs, ptrdiff_t count, ptrdiff_t block,
                      const float *factors) {
    enum { STEPS = HALF_BLOCK / LANES };
    vec low[PANEL_BLOCKS * STEPS], high[PANEL_BLOCKS * STEPS];
    y += block * UFBERT_BLOCK;
#pragma GCC unroll 32
    for (int i = 0; i < panel * STEPS; i++) {
        const float *at = y + i / STEPS * UFBERT_BLOCK + i % STEPS * LANES;
        low[i] = start == START_AT_Y ? v_load(at) : v_set(0.0f);
        high[i] = start == START_AT_Y ? v_load(at + HALF_BLOCK) : v_set(0.0f);
    }
    for (ptrdiff_t r = 0; r < count; r++) {
        const vec coef = v_set(coefs[r]);
        const char *row = rows[r] + block * UFBERT_BLOCK *
                                        (ptrdiff_t)ufbert_item_size(dtype); /* the rest of each address is constant */
#pragma GCC unroll 32
        for (int i = 0; i < panel * STEPS; i++) {
            vec first, second;
            load_row(dtype, row, i / STEPS, i % STEPS * LANES, &first, &second);
            low[i] = v_fma(coef, first, low[i]);
            high[i] = v_fma(coef, second, high[i]);
        }
    }
#pragma GCC unroll 32
    for (int i = 0; i < panel * STEPS; i++) {
        const ptrdiff_t place = i / STEPS * UFBERT_BLOCK + i % STEPS * LANES;
        float *at = y + place;
        if (dtype == UFBERT_INT8 && factors) {
            low[i] = v_mul(low[i], v_load(factors + block * UFBERT_BLOCK + place));
            high[i] = v_mul(high[i], v_load(factors + block * UFBERT_BLOCK + place + HALF_BLOCK));
        }
        if (past == PAST_THE_CACHES) {
            v_stream(at, low[i]);
            v_stream(at + HALF_BLOCK, high[i]);
        } else {
            v_store(at, low[i]);
            v_store(at + HALF_BLOCK, high[i]);
        }
    }
}

/* The last, incomplete block of `left` columns. */
static void mix_tail(ufbert_dtype dtype, int start, float *y, const char *const *rows, const float *coefs,
                     ptrdiff_t count, ptrdiff_t block, ptrdiff_t left, const float *factors) {
    y += block * UFBERT_BLOCK;
    for (int at = 0; at < HALF_BLOCK; at += LANES) {
        vec low = start == START_AT_Y ? v_load_part(y + at, left - at) : v_set(0.0f);
        vec high = start == START_AT_Y ? v_load_part(y + HALF_BLOCK + at, left - HALF_BLOCK - at) : v_set(0.0f);
        for (ptrdiff_t r = 0; r < count; r++) {
            const vec coef = v_set(coefs[r]);
            vec first, second;
            load_row_part(dtype, rows[r], block, at, left, &first, &second);
            low = v_fma(coef, first, low);
            high = v_fma(coef, second, high);
        }
        if (factors) {
            const float *first = factors + block * UFBERT_BLOCK + at;
            low = v_mul(low, v_load_part(first, left - at));
            high = v_mul(high, v_load_part(first + HALF_BLOCK, left - HALF_BLOCK - at));
        }
        v_store_part(y + at, low, left - at);
        v_store_part(y + HALF_BLOCK + at, high, left - HALF_BLOCK - at);
    }
}

INLINE void mix_panel_as(const int panel, const ufbert_dtype dtype, int start, int past, float *y,
                         const char *const *rows, const float *coefs, ptrdiff_t count, ptrdiff_t block,
                         const float *factors) {
    if (start == START_AT_Y)
        mix_panel(panel, dtype, START_AT_Y, THROUGH_CACHES, y, rows, coefs, count, block, factors);
    else if (past == PAST_THE_CACHES)
        mix_panel(panel, dtype, START_AT_ZERO, PAST_THE_CACHES, y, rows, coefs, count, block, factors);
    else
        mix_panel(panel, dtype, START_AT_ZERO, THROUGH_CACHES, y, rows, coefs, count, block, factors);
}

static void mix_wide(ufbert_dtype dtype, int start, int past, float *y, const char *const *rows, const float *coefs,
                     ptrdiff_t count, ptrdiff_t block, const float *factors) {
#define CALL(constant) mix_panel_as(PANEL_BLOCKS, constant, start, past, y, rows, coefs, count, block, factors)
    SWITCH_DTYPE(dtype, CALL)
#undef CALL
}

static void mix_narrow(ufbert_dtype dtype, int start, int past, float *y, const char *const *rows, const float *coefs,
                       ptrdiff_t count, ptrdiff_t block, const float *factors) {
#define CALL(constant) mix_panel_as(1, constant, start, past, y, rows, coefs, count, block, factors)
    SWITCH_DTYPE(dtype, CALL)
#undef CALL
}

/* Columns from `block` on, one panel of them; returns the block after it. Past the last one: n / UFBERT_BLOCK + 1. */
static ptrdiff_t mix_columns(ufbert_dtype dtype, int start, int past, float *y, const char *const *rows,
                             const float *coefs, ptrdiff_t count, ptrdiff_t block, ptrdiff_t n, const float *factors) {
    const ptrdiff_t blocks = n / UFBERT_BLOCK;
    if (block + PANEL_BLOCKS <= blocks) {
        mix_wide(dtype, start, past, y, rows, coefs, count, block, factors);
        return block + PANEL_BLOCKS;
    }
    for (; block < blocks; block++)
        mix_narrow(dtype, start, past, y, rows, coefs, count, block, factors);
    if (n % UFBERT_BLOCK)
        mix_tail(dtype, start, y, rows, coefs, count, blocks, n % UFBERT_BLOCK, factors);
    return blocks + 1;
}

/* y[0:n] = start + sum over r of coefs[r] * rows[r]. */
static void mix_rows(ufbert_dtype dtype, int start, float *y, const char *const *rows, const float *coefs,
                     ptrdiff_t count, ptrdiff_t n) {
    for (ptrdiff_t block = 0; block * UFBERT_BLOCK < n;)
        block = mix_columns(dtype, start, THROUGH_CACHES, y, rows, coefs, count, block, n, NULL);
}

#endif
