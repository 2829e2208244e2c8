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
    /* Rows of x (rows, width_in), panels first to last - 1 of y (rows, width_out). residual is like y, or NULL.
     * scratch: ufbert_linear_scratch() bytes. */
    void (*linear)(const ufbert_linear *layer, const float *x, ptrdiff_t rows, const float *residual, float *y,
                   ptrdiff_t first, ptrdiff_t last, void *scratch);
    /* One head of the text that begins at token `start`. scratch: ufbert_attention_scratch() bytes. */
    void (*attention)(const ufbert_attention *work, ptrdiff_t start, ptrdiff_t length, ptrdiff_t head, void *scratch);
    void (*layer_norm)(const float *x, ptrdiff_t rows, ptrdiff_t width, const float *weight, const float *bias,
                       float eps, float *y);
} ufbert_dense;

/* The kernels that this machine has for the instruction set of that name. */
const ufbert_dense *ufbert_dense_for(const char *isa);

/* Scratch of linear: rows of bytes with their scales for int8 weights, rows of bfloat16 for such weights. */
size_t ufbert_linear_scratch(const ufbert_linear *layer);

/* Scratch of attention for texts up to that length. */
size_t ufbert_attention_scratch(ptrdiff_t length, ptrdiff_t head_size);

/* weight (width_out, width_in) into float32 panels; layer->floats is written to. */
void ufbert_pack_floats(const ufbert_linear *layer, const float *weight);

/* weight into bfloat16 panels, rounded to nearest; layer->halves is written to. */
void ufbert_pack_halves(const ufbert_linear *layer, const float *weight);

/* weight into int8 panels, each column rounded by its own scale; bytes, scales and sums are written to. */
void ufbert_pack_bytes(const ufbert_linear *layer, const float *weight);

#endif
