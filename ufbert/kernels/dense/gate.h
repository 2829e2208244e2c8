/* Gated layers: y (rows, width) = activation(gate) * value, where x (rows, 2 * width) has values, then as many gates. */
#ifndef UFBERT_GATE_H
#define UFBERT_GATE_H

#include "gelu.h"

static void gate(int activation, const float *x, ptrdiff_t rows, ptrdiff_t width, float *y) {
    const ptrdiff_t whole = width / LANES * LANES, left = width - whole;
    for (; rows > 0; rows--, x += 2 * width, y += width) {
        for (ptrdiff_t i = 0; i < whole; i += LANES)
            v_store(y + i, v_mul(dense_activate(activation, v_load(x + width + i)), v_load(x + i)));
        if (left)
            v_store_part(
                y + whole,
                v_mul(dense_activate(activation, v_load_part(x + width + whole, left)), v_load_part(x + whole, left)),
                left);
    }
}

#endif
