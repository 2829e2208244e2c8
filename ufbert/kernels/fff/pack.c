#include "fff.h"

#include <string.h>

void ufbert_pack_bf16_row(const float *row, ptrdiff_t n, uint16_t *packed) {
    const ptrdiff_t half = UFBERT_BLOCK / 2;
    for (ptrdiff_t first = 0; first < n; first += UFBERT_BLOCK)
        for (ptrdiff_t j = 0; j < half; j++) {
            const uint32_t low = first + j < n ? ufbert_bf16(row[first + j]) : 0;
            const uint32_t high = first + half + j < n ? ufbert_bf16(row[first + half + j]) : 0;
            const uint32_t word = high << 16 | low;
            memcpy(packed + first + 2 * j, &word, sizeof word);
        }
}

float ufbert_pack_int8_row(const float *row, ptrdiff_t n, int8_t *packed) {
    float factor;
    const float scale = ufbert_int8_scale(row, n, &factor);
    for (ptrdiff_t i = 0; i < n && scale > 0.0f; i++) {
        const float steps = row[i] / scale; /* as `ufbert.int8.quantize` does */
        packed[i] = (int8_t)ufbert_nearest(steps > 127.0f ? 127.0f : steps < -127.0f ? -127.0f : steps);
    }
    return scale;
}

void ufbert_pack_rows(ufbert_dtype dtype, const float *rows, const int8_t *given, ptrdiff_t nodes, ptrdiff_t width,
                      char *packed, ptrdiff_t stride, float *scales) {
    for (ptrdiff_t node = 0; node < nodes; node++, packed += stride) {
        const float *row = rows ? rows + node * width : NULL;
        if (given)
            memcpy(packed, given + node * width, (size_t)width);
        else if (dtype == UFBERT_INT8)
            scales[node] = ufbert_pack_int8_row(row, width, (int8_t *)packed);
        else if (dtype == UFBERT_BF16)
            ufbert_pack_bf16_row(row, width, (uint16_t *)packed);
        else
            memcpy(packed, row, (size_t)width * sizeof(float));
    }
}
