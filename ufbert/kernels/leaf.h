/* The layer of arXiv 2308.14711: nodes only decide, then one small dense block a leaf computes. */
#include <string.h>

enum { LEAF_ROWS = 64 }; /* pointers on the stack */

/* y += coefs[i] * matrix[i], for n_rows rows of `width`. */
static void add_matrix_rows(float *y, const float *matrix, const float *coefs, ptrdiff_t n_rows, ptrdiff_t width) {
    const char *rows[LEAF_ROWS];
    for (ptrdiff_t first = 0; first < n_rows; first += LEAF_ROWS) {
        const ptrdiff_t now = n_rows - first < LEAF_ROWS ? n_rows - first : LEAF_ROWS;
        for (ptrdiff_t i = 0; i < now; i++)
            rows[i] = (const char *)(matrix + (first + i) * width);
        mix_rows(0, START_AT_Y, y, rows, coefs + first, now, width);
    }
}

static void leaf_fff_forward(const ufbert_leaf_fff *layer, const float *x, ptrdiff_t tokens, float *y, float *hidden) {
    const ptrdiff_t n_in = layer->width_in, width = layer->leaf_width, n_out = layer->width_out;
    for (ptrdiff_t token = 0; token < tokens; token++, x += n_in, y += n_out) {
        ptrdiff_t node = 0;
        for (ptrdiff_t level = 0; level < layer->depth; level++) {
            float dot;
            dot_rows(0, (const char *)(layer->node_weights + node * n_in), &x, 1, n_in, &dot);
            node = 2 * node + 1 + (dot + layer->node_biases[node] >= 0.0f);
        }
        const ptrdiff_t leaf = node - (((ptrdiff_t)1 << layer->depth) - 1);
        memcpy(hidden, layer->b1s + leaf * width, (size_t)width * sizeof(float));
        add_matrix_rows(hidden, layer->w1s + leaf * n_in * width, x, n_in, width);
        activate(layer->activation, hidden, width);
        if (layer->b2s)
            memcpy(y, layer->b2s + leaf * n_out, (size_t)n_out * sizeof(float));
        else
            memset(y, 0, (size_t)n_out * sizeof(float));
        add_matrix_rows(y, layer->w2s + leaf * width * n_out, hidden, width, n_out);
    }
}
