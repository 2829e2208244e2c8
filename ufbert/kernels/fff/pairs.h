/* Sums of output rows for two tokens at a time, which share the loads of the rows that both visited: neighbours in the
 * order of the leaves share most of them. */
#ifndef UFBERT_PAIRS_H
#define UFBERT_PAIRS_H

#include "rows.h"

enum {
    PAIR_VECTORS = 6,
    PAIR_COLUMNS = 3 * UFBERT_BLOCK
}; /* whole panels of every instruction set, whole blocks too */

/* Where the vectors of a panel of packed rows lie: bfloat16 has the second half of a block in the high halves of words. */
INLINE ptrdiff_t pair_column(const ufbert_dtype dtype, ptrdiff_t column, int i) {
    if (dtype != UFBERT_BF16)
        return column + i * LANES;
    const ptrdiff_t word = column / 2 + i / 2 * LANES;
    return word / HALF_BLOCK * UFBERT_BLOCK + word % HALF_BLOCK + i % 2 * HALF_BLOCK;
}

INLINE void load_pair_row(const ufbert_dtype dtype, const char *row, int i, vec *first, vec *second) {
    if (dtype == UFBERT_BF16) {
        const vec words = v_once(v_load_words((const uint16_t *)row + i * LANES));
        *first = v_low_bf16(words);
        *second = v_high_bf16(words);
    } else if (dtype == UFBERT_INT8) {
        *first = v_load_int8((const int8_t *)row + i * LANES);
        *second = v_load_int8((const int8_t *)row + (i + 1) * LANES);
    } else {
        *first = v_load((const float *)row + i * LANES);
        *second = v_load((const float *)row + (i + 1) * LANES);
    }
}

/* What two tokens add up: their rows, of which the first `shared` are the same. coefs[r] is token 0's and token 1's. */
typedef struct {
    float *y[2];
    const char *rows[2][UFBERT_MAX_DEPTH + 1];
    float coefs[UFBERT_MAX_DEPTH + 1][2];
    int shared, count;
} row_pair;

/* Six vectors of columns of both tokens: each row that they share is loaded, and widened, once. Every sum is one chain of
 * additions in the order of the rows, as in `mix_panel`. */
INLINE void mix_pair_panel(const ufbert_dtype dtype, const int start, const int past, const row_pair *pair,
                           ptrdiff_t column, const float *factors) {
    vec sums[2][PAIR_VECTORS], first, second;
    const ptrdiff_t offset = column * (ptrdiff_t)ufbert_item_size(dtype);
    int r = 0;
#pragma GCC unroll 6
    for (int i = 0; i < PAIR_VECTORS; i++) {
        const ptrdiff_t at = pair_column(dtype, column, i);
        sums[0][i] = start == START_AT_Y ? v_load(pair->y[0] + at) : v_set(0.0f);
        sums[1][i] = start == START_AT_Y ? v_load(pair->y[1] + at) : v_set(0.0f);
    }
    for (; r < pair->shared; r++) {
        const vec a = v_set(pair->coefs[r][0]), b = v_set(pair->coefs[r][1]);
        const char *row = pair->rows[0][r] + offset;
#pragma GCC unroll 3
        for (int i = 0; i < PAIR_VECTORS; i += 2) {
            load_pair_row(dtype, row, i, &first, &second);
            sums[0][i] = v_fma_in_place(a, first, sums[0][i]);
            sums[1][i] = v_fma_in_place(b, first, sums[1][i]);
            sums[0][i + 1] = v_fma_in_place(a, second, sums[0][i + 1]);
            sums[1][i + 1] = v_fma_in_place(b, second, sums[1][i + 1]);
        }
    }
    for (; r < pair->count; r++) {
        const vec a = v_set(pair->coefs[r][0]), b = v_set(pair->coefs[r][1]);
        const char *row = pair->rows[0][r] + offset, *other = pair->rows[1][r] + offset;
#pragma GCC unroll 3
        for (int i = 0; i < PAIR_VECTORS; i += 2) {
            load_pair_row(dtype, row, i, &first, &second);
            sums[0][i] = v_fma_in_place(a, first, sums[0][i]);
            sums[0][i + 1] = v_fma_in_place(a, second, sums[0][i + 1]);
            load_pair_row(dtype, other, i, &first, &second);
            sums[1][i] = v_fma_in_place(b, first, sums[1][i]);
            sums[1][i + 1] = v_fma_in_place(b, second, sums[1][i + 1]);
        }
    }
#pragma GCC unroll 2
    for (int t = 0; t < 2; t++)
#pragma GCC unroll 6
        for (int i = 0; i < PAIR_VECTORS; i++) {
            const ptrdiff_t at = pair_column(dtype, column, i);
            if (dtype == UFBERT_INT8 && factors)
                sums[t][i] = v_mul(sums[t][i], v_load(factors + at));
            if (past == PAST_THE_CACHES)
                v_stream(pair->y[t] + at, sums[t][i]);
            else
                v_store(pair->y[t] + at, sums[t][i]);
        }
}

INLINE void mix_pair_as(const ufbert_dtype dtype, const int start, const int past, const row_pair *pair, ptrdiff_t n,
                        const float *factors) {
    for (ptrdiff_t column = 0; column < n; column += PAIR_VECTORS * LANES)
        mix_pair_panel(dtype, start, past, pair, column, factors);
}

INLINE void mix_pair_columns(const ufbert_dtype dtype, int start, int past, const row_pair *pair, ptrdiff_t n,
                             const float *factors) {
    if (start == START_AT_Y)
        mix_pair_as(dtype, START_AT_Y, THROUGH_CACHES, pair, n, factors);
    else if (past == PAST_THE_CACHES)
        mix_pair_as(dtype, START_AT_ZERO, PAST_THE_CACHES, pair, n, factors);
    else
        mix_pair_as(dtype, START_AT_ZERO, THROUGH_CACHES, pair, n, factors);
}

/* y[t][0:n] = start + sum over r of coefs[r][t] * rows[t][r], for both tokens. */
static void mix_pair(ufbert_dtype dtype, int start, int past, const row_pair *pair, ptrdiff_t n, const float *factors) {
    const ptrdiff_t paired = n / PAIR_COLUMNS * PAIR_COLUMNS;
#define CALL(constant) mix_pair_columns(constant, start, past, pair, paired, factors)
    SWITCH_DTYPE(dtype, CALL)
#undef CALL
    for (int t = 0; t < 2 && paired < n; t++) {
        float coefs[UFBERT_MAX_DEPTH + 1];
        for (int r = 0; r < pair->count; r++)
            coefs[r] = pair->coefs[r][t];
        for (ptrdiff_t block = paired / UFBERT_BLOCK; block * UFBERT_BLOCK < n;)
            block = mix_columns(dtype, start, past, pair->y[t], pair->rows[t], coefs, pair->count, block, n, factors);
    }
}

#endif
