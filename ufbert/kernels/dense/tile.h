/* Products of two matrices, a tile at a time. */
#ifndef UFBERT_TILE_H
#define UFBERT_TILE_H

#include "../vectors.h"

enum { VECTORS_AT_ONCE = 2, COLUMNS_AT_ONCE = VECTORS_AT_ONCE * LANES };

/* sums[i][j] += a[i][:k] . b[:k][j], where b's rows are `ldb` floats apart; one vector of columns or two. */
INLINE void multiply(const int rows, const int vectors, const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb,
                     ptrdiff_t k, vec sums[][VECTORS_AT_ONCE]) {
    for (ptrdiff_t p = 0; p < k; p++, b += ldb) {
        const vec b0 = v_load(b), b1 = vectors == 2 ? v_load(b + LANES) : b0;
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const vec x = v_set(a[i * lda + p]);
            sums[i][0] = v_fma(x, b0, sums[i][0]);
            if (vectors == 2)
                sums[i][1] = v_fma(x, b1, sums[i][1]);
        }
    }
}

#endif
