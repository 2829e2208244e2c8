/* Matrices as model files store them: pieces below each other, in 32, 16 or 8 bits. */
#ifndef UFBERT_STORED_H
#define UFBERT_STORED_H

#include "dtypes.h"

typedef enum { UFBERT_STORED_F32, UFBERT_STORED_F16, UFBERT_STORED_BF16, UFBERT_STORED_INT8 } ufbert_stored_dtype;

typedef struct {
    const void *values; /* (rows, width) */
    ptrdiff_t rows;
} ufbert_piece;

typedef struct {
    ufbert_stored_dtype dtype;
    const ufbert_piece *pieces;
    ptrdiff_t num_pieces, width;
} ufbert_stored;

static inline size_t ufbert_stored_size(ufbert_stored_dtype dtype) {
    return dtype == UFBERT_STORED_F32 ? sizeof(float) : dtype == UFBERT_STORED_INT8 ? sizeof(int8_t) : sizeof(uint16_t);
}

static inline int ufbert_is_read_as_it_is(ufbert_stored_dtype dtype) {
    return dtype == UFBERT_STORED_F32 || dtype == UFBERT_STORED_INT8;
}

/* float16 as float32, which is exact. By masks, so that compilers make vectors of it. */
INLINE void ufbert_widen_f16(const uint16_t *restrict from, ptrdiff_t n, float *restrict to) {
    const uint32_t shift = 112u << 23; /* from one exponent to the other */
    for (ptrdiff_t i = 0; i < n; i++) {
        const uint32_t half = from[i], size = (half & 0x7fff) << 13;
        const uint32_t is_infinite = -(uint32_t)(size >= 0x7c00u << 13); /* or NaN: the largest exponent */
        const uint32_t is_subnormal = -(uint32_t)(size < 0x400u << 13);
        const float subnormal = (float)(int32_t)(half & 0x3ff) * 0x1p-24f;
        uint32_t bits;
        memcpy(&bits, &subnormal, sizeof bits);
        bits = (bits & is_subnormal) | ((size + shift + (shift & is_infinite)) & ~is_subnormal);
        bits |= (half & 0x8000) << 16;
        memcpy(to + i, &bits, sizeof bits);
    }
}

INLINE void ufbert_widen_bf16(const uint16_t *restrict from, ptrdiff_t n, float *restrict to) {
    for (ptrdiff_t i = 0; i < n; i++) {
        const uint32_t bits = (uint32_t)from[i] << 16;
        memcpy(to + i, &bits, sizeof bits);
    }
}

/* `n` neighbouring values as float32; int8 as they are. */
INLINE void ufbert_read_stored(ufbert_stored_dtype dtype, const void *from, ptrdiff_t n, void *to) {
    if (dtype == UFBERT_STORED_F16)
        ufbert_widen_f16(from, n, to);
    else if (dtype == UFBERT_STORED_BF16)
        ufbert_widen_bf16(from, n, to);
    else
        memcpy(to, from, (size_t)n * ufbert_stored_size(dtype));
}

#endif
