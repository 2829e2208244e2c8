/* Products of two matrices, a tile at a time. */
#ifndef UFBERT_TILE_H
#define UFBERT_TILE_H

#include "../vectors.h"
#include "dense.h"

enum { VECTORS_AT_ONCE = 2, COLUMNS_AT_ONCE = VECTORS_AT_ONCE * LANES };

/* What comes to the second cache while a tile is computed: a line for each step of its loop, `step` bytes apart. */
typedef struct {
    const char *lines;
    ptrdiff_t step;
} fetching;

INLINE void fetch_line(fetching *fetch) {
#ifdef FETCH_PANELS
    __builtin_prefetch(fetch->lines, 0, 2);
    fetch->lines += fetch->step;
#else
    (void)fetch;
#endif
}

/* A tile's inputs as its dtype wants them. */
typedef struct {
    const float *f32;       /* (rows, width_in) */
    const bf16_input *bf16; /* (rows, pairs, 2) */
    const int8_input *int8; /* (rows, steps, INT8_PRODUCTS): value i is about lows[row] + steps[row] * int8[row][i] */
    const float *lows, *steps;
    const int32_t *totals; /* of the first INT8_STEPS steps of int8; for INT8_WORDS */
} tile_inputs;

INLINE void start_at_bias(const int rows, const float *bias, vec sums[][VECTORS_AT_ONCE]) {
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        sums[i][0] = v_load(bias);
        sums[i][1] = v_load(bias + LANES);
    }
}

/* How many of `left` rows come next where `most` come at a time: on AVX2 they are shared out evenly, for few rows leave
 * its multipliers idle. */
INLINE ptrdiff_t rows_at_once(ptrdiff_t left, ptrdiff_t most) {
    if (left <= most)
        return left;
    if (TILE_ROWS != 6)
        return most;
    const ptrdiff_t times = (left + most - 1) / most;
    return (left + times - 1) / times;
}

INLINE ptrdiff_t tile_height(ptrdiff_t left) { return rows_at_once(left, TILE_ROWS); }

/* sums[i][j] += a[i][:k] . b[:k][j], where b's rows are `ldb` floats apart; one vector of columns or two. */
INLINE void multiply(const int rows, const int vectors, const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb,
                     ptrdiff_t k, fetching *fetch, vec sums[][VECTORS_AT_ONCE]) {
    for (ptrdiff_t p = 0; p < k; p++, b += ldb) {
        if (fetch)
            fetch_line(fetch);
        const vec b0 = v_load(b), b1 = vectors == 2 ? v_load(b + LANES) : b0;
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const vec x = v_set(a[i * lda + p]);
            sums[i][0] = v_fma(x, b0, sums[i][0]);
            if (vectors == 2)
                sums[i][1] = v_fma(x, b1, sums[i][1]);
        }
    }
}

#endif
