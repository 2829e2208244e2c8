/* A tile of a linear layer in bfloat16: inputs and weights are rounded, sums are float32. */
#ifndef UFBERT_BF16_TILE_H
#define UFBERT_BF16_TILE_H

#include "tile.h"

#ifdef VECTORS_DOT_BF16
/* Adds two products to each sum. */
INLINE void bf16_products(const int rows, const bf16_input *x, ptrdiff_t ldx, const uint16_t *weights,
                          vec sums[][VECTORS_AT_ONCE]) {
    const bf16_weights w0 = bf16_load(weights), w1 = bf16_load(weights + LANES * 2);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        const bf16_pair pair = bf16_set_pair(x + i * ldx);
        sums[i][0] = bf16_dot(sums[i][0], pair, w0);
        sums[i][1] = bf16_dot(sums[i][1], pair, w1);
    }
}
#else
/* Adds two products to each sum: the first ones of all rows, then the second ones, so that the weights of one of them are
 * in registers at a time. */
INLINE void bf16_products(const int rows, const bf16_input *x, ptrdiff_t ldx, const uint16_t *weights,
                          vec sums[][VECTORS_AT_ONCE]) {
#pragma GCC unroll 2
    for (int second = 0; second < 2; second++) {
        if (second)
            weights = v_after(weights, sums[rows - 1][1]);
        const vec words0 = v_load_words(weights), words1 = v_load_words(weights + LANES * 2);
        const vec w0 = second ? v_high_bf16(words0) : v_low_bf16(words0);
        const vec w1 = second ? v_high_bf16(words1) : v_low_bf16(words1);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
            v_add_products(sums[i], x + i * ldx + second, w0, w1);
    }
}
#endif

INLINE void bf16_tile(const int rows, const ufbert_linear *linear, const tile_inputs *in, ptrdiff_t row,
                      ptrdiff_t column, const uint16_t *weights, fetching *fetch, vec dots[][VECTORS_AT_ONCE]) {
    const ptrdiff_t pairs = (linear->width_in + 1) / 2;
    const bf16_input *x = in->bf16 + row * pairs * 2;
    vec sums[TILE_ROWS][VECTORS_AT_ONCE]; /* not dots: what nobody else can see stays in registers */
    start_at_bias(rows, linear->bias + column, sums);
    for (ptrdiff_t p = 0; p < pairs; p++, weights += PANEL * 2, x += 2) {
        fetch_line(fetch);
        bf16_products(rows, x, pairs * 2, weights, sums);
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        dots[i][0] = sums[i][0];
        dots[i][1] = sums[i][1];
    }
}

/* x (rows, n) into `rounded`, each row filled up with a zero to whole pairs. */
static void round_rows(const float *x, ptrdiff_t rows, ptrdiff_t n, bf16_input *rounded) {
    const ptrdiff_t whole = n / LANES * LANES;
    for (; rows > 0; rows--, x += n, rounded += (n + 1) / 2 * 2) {
        for (ptrdiff_t i = 0; i < whole; i += LANES)
            v_store_bf16(rounded + i, v_load(x + i));
        if (whole < n) {
            bf16_input last[LANES];
            v_store_bf16(last, v_load_part(x + whole, n - whole)); /* lanes beyond the row are zeros */
            memcpy(rounded + whole, last, (size_t)((n + 1) / 2 * 2 - whole) * sizeof *last);
        }
    }
}

#endif
