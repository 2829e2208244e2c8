/* The inner loops of the conditional-matmul layers: one table of functions for each instruction set.
 *
 * Every function handles whole tokens one after another, so a token's result depends on nothing but the token:
 * not on the batch around it, not on the split between threads. Arrays are C-contiguous float32. */
#ifndef UFBERT_CMM_KERNELS_H
#define UFBERT_CMM_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum { UFBERT_GELU, UFBERT_RELU, UFBERT_SILU, UFBERT_TANH };

typedef struct {
    ptrdiff_t num_trees, num_nodes, depth, width_in, width_out;
    int activation;
    const float *w_in;  /* (num_trees, num_nodes, width_in) */
    const float *b_in;  /* (num_trees, num_nodes) */
    const float *w_out; /* (num_trees, num_nodes, width_out) */
} ufbert_fff;

typedef struct {
    ptrdiff_t depth, width_in, leaf_width, width_out;
    int activation;
    const float *node_weights; /* (2^depth - 1, width_in) */
    const float *node_biases;  /* (2^depth - 1,) */
    const float *w1s;          /* (2^depth, width_in, leaf_width) */
    const float *b1s;          /* (2^depth, leaf_width) */
    const float *w2s;          /* (2^depth, leaf_width, width_out) */
    const float *b2s;          /* (2^depth, width_out) or NULL */
} ufbert_leaf_fff;

typedef struct {
    const char *name;
    /* y (tokens, width_out) from x (tokens, width_in); path (tokens, num_trees, depth + 1) or NULL. */
    void (*fff_forward)(const ufbert_fff *layer, const float *x, ptrdiff_t tokens, float *y, int32_t *path);
    /* hidden: scratch of leaf_width floats. */
    void (*leaf_fff_forward)(const ufbert_leaf_fff *layer, const float *x, ptrdiff_t tokens, float *y, float *hidden);
} ufbert_kernels;

/* The tables that this machine can run, best last; the number of them. */
ptrdiff_t ufbert_supported(const ufbert_kernels **tables, ptrdiff_t capacity);

/* Threads that a parallel region would get at most; 0 if built without OpenMP. The value of _OPENMP, or 0. */
int ufbert_openmp_version(void);

#endif
