/* What every kernel has in common: weight dtypes, activations, limits. */
#ifndef UFBERT_DTYPES_H
#define UFBERT_DTYPES_H

#include "compiler.h"

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* How weights are kept. Inputs, sums and outputs of a kernel are float32. */
typedef enum { UFBERT_F32, UFBERT_BF16, UFBERT_INT8 } ufbert_dtype;

enum { UFBERT_NO_ACTIVATION = -1, UFBERT_GELU, UFBERT_RELU, UFBERT_SILU, UFBERT_TANH };

enum {
    UFBERT_CACHE_LINE = 64,
    UFBERT_MAX_DEPTH = 24,     /* levels of a tree below its root */
    UFBERT_MOST_LANES = 16,    /* of any instruction set */
    UFBERT_MOST_TILE_ROWS = 8, /* of any instruction set */
};

static inline size_t ufbert_item_size(ufbert_dtype dtype) {
    return dtype == UFBERT_F32 ? sizeof(float) : dtype == UFBERT_BF16 ? sizeof(uint16_t) : sizeof(int8_t);
}

static inline ptrdiff_t ufbert_round_up(ptrdiff_t n, ptrdiff_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

/* Values that differ by less are rounded to the same int8: a factor for them would be infinite. */
#define UFBERT_SMALLEST_RANGE 1e-36f

/* The bfloat16 nearest to a value; ties go to even, NaN stays NaN. */
static inline uint16_t ufbert_bf16(float value) {
    const union {
        float value;
        uint32_t bits;
    } word = {value};
    if ((word.bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(word.bits >> 16 | 0x40); /* rounding could make it an infinity */
    return (uint16_t)((word.bits + 0x7fff + (word.bits >> 16 & 1)) >> 16);
}

/* The whole number nearest to a value up to 2^22, ties to even: the sum has no bits left for a fraction. */
static inline int ufbert_nearest(float value) { return (int)((value + 12582912.0f) - 12582912.0f); }

/* The scale of a row as int8, largest size / 127, and the factor that values are multiplied with before they are rounded.
 * A row with a value that is not finite gets a scale of NaN, and zeros. */
static inline float ufbert_int8_scale(const float *row, ptrdiff_t n, float *factor) {
    union {
        uint32_t bits;
        float value;
    } largest = {0};
    *factor = 0.0f;
    for (ptrdiff_t i = 0; i < n; i++) { /* bits without their sign are in the order of the sizes; NaN comes last */
        uint32_t size;
        memcpy(&size, row + i, sizeof size);
        size &= 0x7fffffff;
        largest.bits = size > largest.bits ? size : largest.bits;
    }
    if (!(largest.value <= FLT_MAX))
        return NAN;
    if (largest.value > UFBERT_SMALLEST_RANGE)
        *factor = 127.0f / largest.value;
    return largest.value / 127.0f;
}

#endif
