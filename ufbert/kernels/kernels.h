/* The compiled kernels: one table of functions for each instruction set.
 *
 * All arithmetic on one token has one order, whatever stands beside it in a block, a batch or a thread: a token's
 * result is the same bits alone and among 16,384 others. Nothing here checks; `ufbert.cmm` does. */
#ifndef UFBERT_KERNELS_H
#define UFBERT_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum { UFBERT_GELU, UFBERT_RELU, UFBERT_SILU, UFBERT_TANH };

/* Rows of bfloat16 come in blocks of this many elements, the last one filled up with zeros: the low half of 32-bit
 * word j of a block is element j, its high half element j + 16, so that a shift and a mask widen them in order. */
enum { UFBERT_BLOCK = 32 };

/* P trees of n nodes. A row is found by strides in bytes: rows may be the user's plain arrays or packed ones. */
typedef struct {
    ptrdiff_t num_trees, num_nodes, depth, width_in, width_out;
    int activation;
    int bfloat16; /* rows are bfloat16 blocks, else float32 */
    const char *w_in;
    const float *b_in; /* (num_trees, num_nodes) */
    const char *w_out;
    ptrdiff_t stride_in, stride_out; /* from a node's row to the next node's; trees follow each other */
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

/* What the backward pass works on; rows are plain float32. V = num_trees * (depth + 1) visits a token. Gradients of
 * rows and biases are added to what is there. */
typedef struct {
    const ufbert_fff *layer;
    const float *dy, *x;   /* (T, width_out), (T, width_in) */
    const int32_t *path;   /* (T, V) */
    const float *scores;   /* (T, V) */
    float *dx;             /* (T, width_in) */
    float *dw_in, *db_in, *dw_out;
    /* What decisions need; `tried` is NULL where they carry no gradient. */
    const int32_t *tried;      /* (T, num_trees), levels above the last */
    const float *out_squares;  /* (num_trees, num_nodes), squared lengths of output rows */
    const float *switch_costs; /* (T,) */
} ufbert_backward;

typedef struct {
    const char *name;
    /* y (tokens, width_out) from x (tokens, width_in). path and scores: (tokens, num_trees, depth + 1) or NULL.
     * scratch: ufbert_scratch_bytes(). stream: write y past the caches. */
    void (*fff_forward)(const ufbert_fff *layer, const float *x, ptrdiff_t tokens, float *y, int32_t *path,
                        float *scores, int stream, void *scratch);
    /* hidden: scratch of leaf_width floats. */
    void (*leaf_fff_forward)(const ufbert_leaf_fff *layer, const float *x, ptrdiff_t tokens, float *y, float *hidden);
    /* Tokens of one subtree of level `top`, in the order of their leaves: dx, and the gradients of the subtree's rows.
     * Those of its `top` ancestors are added to `above`: (top, ufbert_floats_above()), each the gradient of an input
     * row, of an output row, of a bias. */
    void (*backward_tokens)(const ufbert_backward *pass, ptrdiff_t tree, ptrdiff_t top, const int32_t *tokens,
                            ptrdiff_t count, float *above);
} ufbert_kernels;

static inline ptrdiff_t ufbert_floats_above(const ufbert_fff *layer) {
    return (layer->width_in + layer->width_out + 1 + 15) / 16 * 16; /* whole cache lines */
}

/* Most tokens that one pass down the trees handles together, for layers of this many visits a token. */
ptrdiff_t ufbert_tile_tokens(const ufbert_fff *layer);

/* Scratch that fff_forward needs for that many tokens. */
size_t ufbert_scratch_bytes(const ufbert_fff *layer, ptrdiff_t tokens);

/* The tables that this machine can run, best last; the number of them. */
ptrdiff_t ufbert_supported(const ufbert_kernels **tables, ptrdiff_t capacity);

/* The value of _OPENMP, or 0 if built without. */
int ufbert_openmp_version(void);

/* Bytes of zeroed memory on a boundary of 64 bytes, on huge pages where the system grants them; NULL if there is no
 * more. Freed with ufbert_free_pages and the same number. */
void *ufbert_allocate_pages(size_t bytes);
void ufbert_free_pages(void *pages, size_t bytes);

/* The bfloat16 nearest to a value; ties go to even, NaN stays NaN. */
static inline uint16_t ufbert_bfloat16(float value) {
    union {
        float value;
        uint32_t bits;
    } word = {value};
    if ((word.bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(word.bits >> 16 | 0x40); /* rounding could make it an infinity */
    return (uint16_t)((word.bits + 0x7fff + (word.bits >> 16 & 1)) >> 16);
}

/* Rounds n float32 values to bfloat16 (to nearest, ties to even) in the block layout above. */
void ufbert_pack_bfloat16(const float *row, ptrdiff_t n, uint16_t *packed);

#endif
