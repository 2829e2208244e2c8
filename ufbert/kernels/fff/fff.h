/* Fast feedforward layers (FFF): P binary trees of nodes; a token visits one path in each.
 *
 * All arithmetic on one token has one order, whatever stands beside it in a block, a batch or a thread: a token's
 * result is the same bits alone and among 16,384 others. Nothing here checks; `ufbert.cmm` does. */
#ifndef UFBERT_FFF_H
#define UFBERT_FFF_H

#include "../stored.h"
#include "../team.h"

/* Packed rows come in blocks of this many elements, the last one filled up with zeros. bfloat16: the low half of 32-bit
 * word j of a block is element j, its high half element j + 16, so that a shift and a mask widen them in order. */
enum { UFBERT_BLOCK = 32 };

/* P trees of n nodes. A row is found by strides in bytes: rows may be the user's plain arrays or packed ones. */
typedef struct {
    ptrdiff_t num_trees, num_nodes, depth, width_in, width_out;
    int activation;
    ufbert_dtype dtype; /* of the rows */
    const char *w_in;
    const float *b_in; /* (num_trees, num_nodes) */
    const char *w_out;
    ptrdiff_t stride_in, stride_out; /* from a node's row to the next node's; trees follow each other */
    /* What int8 rows are multiplied with; each may be NULL, for 1. */
    const float *scales_in, *scales_out; /* (num_trees, num_nodes): a node's rows */
    const float *columns_out;            /* (width_out,): the columns of w_out */
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
    const ufbert_fff *fff;
    const float *dy, *x; /* (T, width_out), (T, width_in) */
    const int32_t *path; /* (T, V) */
    const float *scores; /* (T, V) */
    float *dx;           /* (T, width_in) */
    float *dw_in, *db_in, *dw_out;
    /* What decisions need; `tried` is NULL where they carry no gradient. */
    const int32_t *tried;      /* (T, num_trees), levels above the last */
    const float *out_squares;  /* (num_trees, num_nodes), squared lengths of output rows */
    const float *switch_costs; /* (T,) */
} ufbert_backward;

typedef struct {
    /* y (tokens, width_out) from x (tokens, width_in). path and scores: (tokens, num_trees, depth + 1) or NULL.
     * scratch: ufbert_fff_scratch() bytes. stream: write y past the caches. */
    void (*forward)(const ufbert_fff *fff, const float *x, ptrdiff_t tokens, float *y, int32_t *path, float *scores,
                    int stream, void *scratch);
    /* hidden: scratch of leaf_width floats. */
    void (*leaf_forward)(const ufbert_leaf_fff *leaf, const float *x, ptrdiff_t tokens, float *y, float *hidden);
    /* Tokens of one subtree of level `top`, in the order of their leaves: dx, and the gradients of the subtree's rows.
     * Those of its `top` ancestors are added to `above`: (top, ufbert_floats_above()), each the gradient of an input
     * row, of an output row, of a bias. */
    void (*backward)(const ufbert_backward *pass, ptrdiff_t tree, ptrdiff_t top, const int32_t *tokens, ptrdiff_t count,
                     float *above);
} ufbert_fff_kernels;

enum {
    UFBERT_TILE_TOKENS = 8192,
    UFBERT_TILE_VISITS = 1 << 18, /* scratch holds 8 bytes for each */
    UFBERT_WALKERS = 4,           /* tokens that walk side by side; scratch holds a copy of each */
};

/* Bytes from a packed row to the next one: rows begin at cache lines. */
static inline ptrdiff_t ufbert_row_stride(ptrdiff_t width, ufbert_dtype dtype) {
    return ufbert_round_up(ufbert_round_up(width, UFBERT_BLOCK) * (ptrdiff_t)ufbert_item_size(dtype),
                           UFBERT_CACHE_LINE);
}

static inline ptrdiff_t ufbert_floats_above(const ufbert_fff *fff) {
    return ufbert_round_up(fff->width_in + fff->width_out + 1, 16); /* whole cache lines */
}

/* Floats from a copied input to the next one: whole cache lines, and an odd number, so that copies share no set. */
static inline ptrdiff_t ufbert_copy_stride(const ufbert_fff *fff) { return (fff->width_in / 32 + 1) * 32 + 16; }

/* Most tokens that one pass down the trees handles together, for trees of this many visits a token. */
static inline ptrdiff_t ufbert_tile_tokens(const ufbert_fff *fff) {
    const ptrdiff_t most = UFBERT_TILE_VISITS / (fff->num_trees * (fff->depth + 1));
    return most < 8 ? 8 : most > UFBERT_TILE_TOKENS ? UFBERT_TILE_TOKENS : most;
}

/* Scratch that `forward` needs for that many tokens. */
static inline size_t ufbert_fff_scratch(const ufbert_fff *fff, ptrdiff_t tokens) {
    const ptrdiff_t most = ufbert_tile_tokens(fff), tile = tokens < most ? tokens : most;
    const ptrdiff_t visits = fff->num_trees * (fff->depth + 1);
    return (size_t)tile * (4 * sizeof(int32_t) + (size_t)visits * (sizeof(int32_t) + sizeof(float))) +
           UFBERT_WALKERS * (size_t)ufbert_copy_stride(fff) * sizeof(float) + UFBERT_CACHE_LINE;
}

/* Packs a row of n float32 values; blocks are filled up with zeros. */
void ufbert_pack_bf16_row(const float *row, ptrdiff_t n, uint16_t *packed);
/* Rounds to multiples of the row's scale, which it returns. */
float ufbert_pack_int8_row(const float *row, ptrdiff_t n, int8_t *packed);
/* Rows of all nodes as they come: (nodes, width), or `transposed` (width, nodes), which int8 may not be. */
typedef struct {
    ufbert_stored_dtype dtype;
    const void *values;
    ptrdiff_t nodes, width;
    int transposed;
} ufbert_node_rows;

/* The rows of all nodes, `stride` bytes from one to the next; of int8 rows their scales, unless the rows come as int8.
 * Scratch is allocated and freed; -1 if there is none. */
int ufbert_pack_rows(ufbert_dtype dtype, const ufbert_node_rows *rows, char *packed, ptrdiff_t stride, float *scales,
                     ufbert_team *team, int threads);

/* One tree's tokens in the order of their leaves; starts (leaves + 1,) tells where each leaf's begin. Those of a leaf come
 * by the level tried: where levels are alike, so are the first nodes of the paths not taken. */
void ufbert_sort_tokens(const ufbert_backward *work, ptrdiff_t tree, ptrdiff_t num_tokens, int64_t *starts,
                        int32_t *tokens, int32_t *spare);

/* Gradients of the nodes above level `top`: sums of their subtrees' sums, in the order of the subtrees. */
void ufbert_add_above(const ufbert_backward *work, ptrdiff_t tree, ptrdiff_t top, const float *above);

#endif
