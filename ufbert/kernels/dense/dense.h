/* The dense part of an encoder: linear layers on packed weights, attention, layer norm, a whole layer.
 *
 * Every output element is one chain of additions in an order fixed by position alone, so a row's result does not depend
 * on the rows beside it, on the batch or on the number of threads. */
#ifndef UFBERT_DENSE_H
#define UFBERT_DENSE_H

#include "../fff/fff.h"

enum {
    UFBERT_ROWS_IN_CHUNK = 96,    /* rows that a panel meets before the next one is read */
    UFBERT_BEHIND_DISTANCES = 16, /* a vector at least: values that must be readable behind a distance bias */
};

/* How an instruction set lays out packed weights. A layer runs on kernels of the layout that it was packed for. */
typedef struct {
    int panel; /* columns that lie together */
} ufbert_layout;

/* y = activation(x W' + b) + residual. Panels are filled up with zeros to whole ones. */
typedef struct {
    ptrdiff_t width_in, width_out;
    int activation;
    ufbert_dtype dtype;
    /* float32: (panels, width_in, panel); bfloat16: (panels, width_in / 2 rounded up, panel, 2) uint16;
     * int8: (panels, width_in / 4 rounded up, panel, 4), or in words (panels, width_in / 2 rounded up, 8, 2) uint16. */
    const void *weights;
    const float *bias;   /* (panels, panel) */
    const float *scales; /* of int8 columns: (panels, panel); else NULL */
    const float *sums;   /* of the int8 weights of each column: (panels, panel); else NULL */
} ufbert_linear;

/* What is added to a score by how far behind its query a key stands: distance d of a head is values[head * stride +
 * reach + d]. No text is longer than reach + 1. */
typedef struct {
    const float *values;     /* NULL for none */
    ptrdiff_t reach, stride; /* stride is at least 2 * reach + 1 + UFBERT_BEHIND_DISTANCES */
} ufbert_distance_bias;

typedef struct {
    ptrdiff_t num_heads, head_size;
    float scale;
    float *qkv;              /* (T, 3 * num_heads * head_size); queries and keys change where there are rotations */
    const uint8_t *attended; /* (T,) or NULL */
    float *context;          /* (T, num_heads * head_size) */
    ufbert_distance_bias bias;
    /* (positions, head_size) or NULL: by which angle each pair of columns (j, head_size / 2 + j) of a query or key is
     * turned at a position, head_size / 2 cosines and as many sines. No text is longer than the positions. */
    const float *rotations;
    ptrdiff_t window; /* keys that stand this far from their query or further are left out; 0 for none */
} ufbert_attention;

typedef struct {
    const float *weight, *bias; /* (H,) */
    float eps;
} ufbert_norm;

/* An encoder layer. The feed-forward part is dense_in and dense_out, or else `trees`. */
typedef struct {
    ptrdiff_t width, num_heads;
    float scale;
    int pre; /* norms come before attention and feed-forward, else after their residual sums */
    const ufbert_linear *query_key_value, *output, *dense_in, *dense_out;
    ufbert_norm norm1, norm2; /* norm1.weight may be NULL where norms come before: none */
    const ufbert_fff *trees;
    const float *tree_bias; /* (H,) or NULL: is added to what the trees give */
    ufbert_distance_bias distance_bias;
    const float *rotations; /* as in ufbert_attention */
    ptrdiff_t window;       /* as in ufbert_attention */
    int gated;              /* dense_in gives values, then as many gates; dense_out takes activation(gate) * value */
    int gate_activation;
} ufbert_encoder_layer;

/* The steps of a layer, after each of which its threads wait for each other. */
enum {
    UFBERT_GROUPS,
    UFBERT_QUERIES_KEYS_VALUES,
    UFBERT_HEADS,
    UFBERT_CONTEXT,
    UFBERT_DENSE_IN,
    UFBERT_GATES,
    UFBERT_DENSE_OUT,
    UFBERT_LAST_NORM,
    UFBERT_TREES,
    UFBERT_STEPS
};

/* One batch on its way through a layer. */
typedef struct {
    const float *x;            /* (T, H) */
    float *y;                  /* (T, H), which is not x */
    const uint8_t *attended;   /* (T,) or NULL */
    const int64_t *cu_seqlens; /* (num_texts + 1,) */
    const int64_t *groups;     /* (num_groups + 1,): where groups of texts begin, and the end */
    ptrdiff_t num_texts, num_groups;
    ptrdiff_t longest, largest; /* tokens of the longest text, of the largest group */
    int by_columns;             /* threads share out columns, else groups of texts */
    /* What ufbert_run_layer sets. */
    const ufbert_fff_kernels *fff; /* for trees */
    ufbert_step steps[UFBERT_STEPS];
    ptrdiff_t tree_rows;                  /* that go through the trees at a time */
    float *qkv, *context, *hidden, *sums; /* that threads share when they go by columns */
    char *scratch;                        /* of all threads */
} ufbert_layer_pass;

/* What one thread works with. */
typedef struct {
    float *normed, *qkv, *context, *hidden, *tree_sums;
    void *scratch; /* of linear, attention and trees */
} ufbert_layer_buffers;

/* A matrix on its way into panels. */
typedef struct {
    ufbert_dtype dtype;
    const ufbert_stored *weight; /* (width_out, width_in) */
    ptrdiff_t width_out;
    void *panels;
    float *scales, *sums; /* for int8, else NULL; with sums and without scales, weight is int8 already */
    char *scratch;        /* of all threads; NULL where rows are read in place */
    size_t for_panel;     /* bytes of it that a thread has */
} ufbert_packing;

typedef struct {
    ufbert_layout layout;
    /* Rows of x (rows, width_in), panels first to last - 1 of y (rows, width_out). residual is like y, or NULL.
     * scratch: ufbert_linear_scratch() bytes. */
    void (*linear)(const ufbert_linear *linear, const float *x, ptrdiff_t rows, const float *residual, float *y,
                   ptrdiff_t first, ptrdiff_t last, void *scratch);
    /* One head of the text that begins at token `start`. scratch: ufbert_attention_scratch() bytes. */
    void (*attention)(const ufbert_attention *attention, ptrdiff_t start, ptrdiff_t length, ptrdiff_t head,
                      void *scratch);
    void (*layer_norm)(const ufbert_norm *norm, const float *x, ptrdiff_t rows, ptrdiff_t width, float *y);
    /* What one thread of a team does of a layer, which is cut into as many shares as threads were asked for. */
    void (*encoder_layer)(const ufbert_encoder_layer *layer, ufbert_layer_pass *pass,
                          const ufbert_layer_buffers *buffers, ptrdiff_t shares);
    /* y (rows, width) = activation(gate) * value of x (rows, 2 * width), which has values, then gates. */
    void (*gate)(int activation, const float *x, ptrdiff_t rows, ptrdiff_t width, float *y);
    ufbert_share_work *pack_panel; /* of a ufbert_packing */
} ufbert_dense_kernels;

/* Bytes of the packed weights. */
size_t ufbert_linear_bytes(const ufbert_layout *layout, ptrdiff_t width_in, ptrdiff_t width_out, ufbert_dtype dtype);

/* Scratch of linear: a chunk of its rows as int8, with what each byte stands for, or as bfloat16. */
size_t ufbert_linear_scratch(const ufbert_linear *linear);

/* Scratch of attention for texts up to that length. */
size_t ufbert_attention_scratch(ptrdiff_t length, ptrdiff_t head_size);

/* weight (width_out, width_in) into zeroed panels of that dtype: rounded to the nearest bfloat16, or to int8 with a scale
 * for each column. scales and sums: for int8, else NULL. With sums and without scales, weight is int8 already.
 * Scratch is allocated and freed, a panel as float32 for each thread; -1 if there is none. */
int ufbert_pack_linear(const ufbert_dense_kernels *kernels, ufbert_dtype dtype, const ufbert_stored *weight,
                       ptrdiff_t width_out, void *panels, float *scales, float *sums, ufbert_team *team, int threads);

/* y from x by that many threads. Scratch is allocated and freed; -1 if there is none. */
int ufbert_run_layer(const ufbert_dense_kernels *dense, const ufbert_fff_kernels *fff,
                     const ufbert_encoder_layer *layer, ufbert_layer_pass *pass, ufbert_team *team, int threads);

#endif
