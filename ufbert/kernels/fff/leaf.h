/* The layer of arXiv 2308.14711: nodes only decide, then one small dense block a leaf computes. */
#ifndef UFBERT_LEAF_H
#define UFBERT_LEAF_H

#include "../activation.h"
#include "rows.h"

enum { LEAF_ROWS = 64 }; /* pointers on the stack */

/* y += coefs[i] * matrix[i], for n_rows rows of `width`. */
static void add_matrix_rows(float *y, const float *matrix, const float *coefs, ptrdiff_t n_rows, ptrdiff_t width) {
    const char *rows[LEAF_ROWS];
    for (ptrdiff_t first = 0; first < n_rows; first += LEAF_ROWS) {
        const ptrdiff_t now = n_rows - first < LEAF_ROWS ? n_rows - first : LEAF_ROWS;
        for (ptrdiff_t i = 0; i < now; i++)
            rows[i] = (const char *)(matrix + (first + i) * width);
        mix_rows(UFBERT_F32, START_AT_Y, y, rows, coefs + first, now, width);
    }
}

static void leaf_forward(const ufbert_leaf_fff *leaf_fff, const float *x, ptrdiff_t tokens, float *y, float *hidden) {
    const ptrdiff_t n_in = leaf_fff->width_in, width = leaf_fff->leaf_width, n_out = leaf_fff->width_out;
    for (ptrdiff_t token = 0; token < tokens; token++, x += n_in, y += n_out) {
        ptrdiff_t node = 0;
        for (ptrdiff_t level = 0; level < leaf_fff->depth; level++) {
            float dot;
            dot_rows(UFBERT_F32, (const char *)(leaf_fff->node_weights + node * n_in), &x, 1, n_in, &dot);
            node = 2 * node + 1 + (dot + leaf_fff->node_biases[node] >= 0.0f);
        }
        const ptrdiff_t leaf = node - (((ptrdiff_t)1 << leaf_fff->depth) - 1);
        memcpy(hidden, leaf_fff->b1s + leaf * width, (size_t)width * sizeof(float));
        add_matrix_rows(hidden, leaf_fff->w1s + leaf * n_in * width, x, n_in, width);
        activate(leaf_fff->activation, hidden, width);
        if (leaf_fff->b2s)
            memcpy(y, leaf_fff->b2s + leaf * n_out, (size_t)n_out * sizeof(float));
        else
            memset(y, 0, (size_t)n_out * sizeof(float));
        add_matrix_rows(y, leaf_fff->w2s + leaf * width * n_out, hidden, width, n_out);
    }
}

#endif
