/* The dense part of an encoder: linear layers on packed weights, attention, layer norm.
 *
 * Every output element is one chain of additions in an order fixed by position alone, so a row's result does not depend
 * on the rows beside it, on the batch or on the number of threads. */
#ifndef UFBERT_DENSE_H
#define UFBERT_DENSE_H

#include <stddef.h>
#include <stdint.h>

enum {
    UFBERT_PANEL = 32,       /* columns that lie together in packed weights */
    UFBERT_ROWS_IN_CHUNK = 96, /* rows that a panel meets before the next one is read */
    UFBERT_NO_ACTIVATION = -1,
};

/* y = activation(x W' + b) + residual. Panels are filled up with zeros to whole ones. */
typedef struct {
    ptrdiff_t width_in, width_out;
    int activation;
    const float *bias;   /* (panels, 32) */
    const float *floats; /* float32 weights: (panels, width_in, 32); else NULL */
    const uint16_t *halves; /* bfloat16 weights: (panels, width_in / 2 rounded up, 32, 2); else NULL */
    const int8_t *bytes; /* int8 weights: (panels, width_in / 4 rounded up, 32, 4); else NULL */
    const float *scales; /* of int8 columns: (panels, 32) */
    const float *sums;   /* of the int8 weights of each column: (panels, 32) */
} ufbert_linear;

typedef struct {
    ptrdiff_t num_heads, head_size;
    float scale;
    const float *qkv;        /* (T, 3 * num_heads * head_size) */
    const uint8_t *attended; /* (T,) or NULL */
    float *context;          /* (T, num_heads * head_size) */
} ufbert_attention;

typedef struct {
    const float *weight, *bias; /* (H,) */
    float eps;
} ufbert_norm;

/* A whole encoder layer. Without dense_in and dense_out it ends before the feed-forward layer: with norm1 of the
 * residual sum, or with the sum itself where norms come first. */
typedef struct {
    ptrdiff_t width, num_heads;
    float scale;
    int pre; /* norms come before attention and feed-forward, else after their residual sums */
    const ufbert_linear *query_key_value, *output, *dense_in, *dense_out;
    ufbert_norm norm1, norm2;
    const float *tree_bias; /* (H,) or NULL: what trees in the feed-forward layer's place add */
} ufbert_layer;

/* One batch on its way through a layer. */
typedef struct {
    const float *x; /* (T, H) */
    float *y;       /* (T, H), which is not x */
    const uint8_t *attended; /* (T,) or NULL */
    const int64_t *cu_seqlens; /* (num_texts + 1,) */
    const int64_t *groups; /* (num_groups + 1,): where groups of texts begin, and the end */
    ptrdiff_t num_texts, num_groups;
    ptrdiff_t longest, largest; /* tokens of the longest text, of the largest group */
    int by_columns; /* members share out columns, else groups of texts */
    ptrdiff_t next; /* group that nobody has taken */
    float *qkv, *context, *hidden, *sums; /* that members share when they go by columns */
    char *scratch;                        /* ufbert_member_bytes() for each member */
} ufbert_pass;

/* What one member works with. */
typedef struct {
    float *normed, *qkv, *context, *hidden;
    void *scratch; /* of linear and attention */
} ufbert_member;

typedef struct {
    /* Rows of x (rows, width_in), panels first to last - 1 of y (rows, width_out). residual is like y, or NULL.
     * scratch: ufbert_linear_scratch() bytes. */
    void (*linear)(const ufbert_linear *layer, const float *x, ptrdiff_t rows, const float *residual, float *y,
                   ptrdiff_t first, ptrdiff_t last, void *scratch);
    /* One head of the text that begins at token `start`. scratch: ufbert_attention_scratch() bytes. */
    void (*attention)(const ufbert_attention *work, ptrdiff_t start, ptrdiff_t length, ptrdiff_t head, void *scratch);
    void (*layer_norm)(const float *x, ptrdiff_t rows, ptrdiff_t width, const float *weight, const float *bias,
                       float eps, float *y);
    /* What a member of a team has to do of a layer; all members of an OpenMP team must call it. */
    void (*encoder_layer)(const ufbert_layer *layer, ufbert_pass *pass, int member, int members);
    /* y (rows, H) = y + sums, and norm2 of that where norms come last: the end of a layer without dense_in. */
    void (*add_trees)(const ufbert_layer *layer, const float *sums, ptrdiff_t rows, float *y);
} ufbert_dense;

/* The kernels that this machine has for the instruction set of that name. */
const ufbert_dense *ufbert_dense_for(const char *isa);

/* Scratch of linear: rows of bytes with their scales for int8 weights, rows of bfloat16 for such weights. */
size_t ufbert_linear_scratch(const ufbert_linear *layer);

/* Scratch of attention for texts up to that length. */
size_t ufbert_attention_scratch(ptrdiff_t length, ptrdiff_t head_size);

/* Allocates the scratch of a pass, which free() frees; NULL if there is none. */
void *ufbert_begin_layer(const ufbert_layer *layer, ufbert_pass *pass, int members);

/* y from x by `members` threads. Scratch is allocated and freed; -1 if there is none. */
int ufbert_run_layer(const ufbert_dense *kernels, const ufbert_layer *layer, ufbert_pass *pass, int members);

ufbert_member ufbert_member_of(const ufbert_layer *layer, const ufbert_pass *pass, int member);

/* weight (width_out, width_in) into float32 panels; layer->floats is written to. */
void ufbert_pack_floats(const ufbert_linear *layer, const float *weight, int threads);

/* weight into bfloat16 panels, rounded to nearest; layer->halves is written to. */
void ufbert_pack_halves(const ufbert_linear *layer, const float *weight, int threads);

/* weight into int8 panels, each column rounded by its own scale; bytes, scales and sums are written to. */
void ufbert_pack_bytes(const ufbert_linear *layer, const float *weight, int threads);

#endif
