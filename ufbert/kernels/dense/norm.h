/* Layer norm, row by row. y may be x. */
#ifndef UFBERT_NORM_H
#define UFBERT_NORM_H

#include "../vectors.h"
#include "dense.h"

static void layer_norm(const ufbert_norm *norm, const float *x, ptrdiff_t rows, ptrdiff_t width, float *y) {
    const float *weight = norm->weight, *bias = norm->bias;
    const ptrdiff_t whole = width / LANES * LANES, left = width - whole;
    for (; rows > 0; rows--, x += width, y += width) {
        vec sum = v_set(0.0f), squares = v_set(0.0f), last = v_set(0.0f);
        for (ptrdiff_t i = 0; i < whole; i += LANES)
            sum = v_add(sum, v_load(x + i));
        if (left)
            sum = v_add(sum, v_load_part(x + whole, left));
        const vec mean = v_set(v_sum(sum) / (float)width);
        for (ptrdiff_t i = 0; i < whole; i += LANES) {
            const vec centred = v_sub(v_load(x + i), mean);
            squares = v_fma(centred, centred, squares);
        }
        if (left) { /* lanes beyond the row count for nothing */
            float lanes[LANES] = {0.0f};
            last = v_sub(v_load_part(x + whole, left), mean);
            v_store_part(lanes, last, left);
            squares = v_fma(v_load(lanes), v_load(lanes), squares);
        }
        const vec factor = v_set(1.0f / sqrtf(v_sum(squares) / (float)width + norm->eps));
        for (ptrdiff_t i = 0; i < whole; i += LANES) {
            const vec centred = v_mul(v_sub(v_load(x + i), mean), factor);
            v_store(y + i, v_fma(centred, v_load(weight + i), v_load(bias + i)));
        }
        if (left)
            v_store_part(y + whole,
                         v_fma(v_mul(last, factor), v_load_part(weight + whole, left), v_load_part(bias + whole, left)),
                         left);
    }
}

#endif
