#include "fff.h"

#include <stdlib.h>
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

enum { NODES_IN_BLOCK = 32 }; /* of a transposed matrix: a cache line of float16 */

typedef struct {
    ufbert_dtype dtype;
    const ufbert_node_rows *rows;
    char *packed;
    ptrdiff_t stride;
    float *scales;
    float *scratch; /* (threads, NODES_IN_BLOCK, width) */
} rows_packing;

/* Rows `first` to `first + count - 1` as float32 (or int8), `step` bytes from one to the next. */
static void read_rows(const ufbert_node_rows *rows, ptrdiff_t first, ptrdiff_t count, char *to, ptrdiff_t step) {
    const ptrdiff_t size = (ptrdiff_t)ufbert_stored_size(rows->dtype), width = rows->width;
    const char *values = rows->values;
    if (!rows->transposed) {
        for (ptrdiff_t i = 0; i < count; i++)
            ufbert_read_stored(rows->dtype, values + (first + i) * width * size, width, to + i * step);
        return;
    }
    float column[NODES_IN_BLOCK];
    for (ptrdiff_t j = 0; j < width; j++) {
        ufbert_read_stored(rows->dtype, values + (j * rows->nodes + first) * size, count, column);
        for (ptrdiff_t i = 0; i < count; i++)
            memcpy(to + i * step + j * (ptrdiff_t)sizeof(float), column + i, sizeof(float));
    }
}

static void pack_block(void *argument, ptrdiff_t block, int member) {
    const rows_packing *work = argument;
    const ptrdiff_t first = block * NODES_IN_BLOCK, left = work->rows->nodes - first, width = work->rows->width;
    const ptrdiff_t count = left < NODES_IN_BLOCK ? left : NODES_IN_BLOCK;
    char *packed = work->packed + first * work->stride;
    if (work->dtype == UFBERT_F32 || work->rows->dtype == UFBERT_STORED_INT8) {
        read_rows(work->rows, first, count, packed, work->stride);
        return;
    }
    float *row = work->scratch + member * NODES_IN_BLOCK * width;
    read_rows(work->rows, first, count, (char *)row, width * (ptrdiff_t)sizeof(float));
    for (ptrdiff_t i = 0; i < count; i++, row += width, packed += work->stride) {
        if (work->dtype == UFBERT_INT8)
            work->scales[first + i] = ufbert_pack_int8_row(row, width, (int8_t *)packed);
        else
            ufbert_pack_bf16_row(row, width, (uint16_t *)packed);
    }
}

int ufbert_pack_rows(ufbert_dtype dtype, const ufbert_node_rows *rows, char *packed, ptrdiff_t stride, float *scales,
                     ufbert_team *team, int threads) {
    rows_packing work = {dtype, rows, packed, stride, scales, NULL};
    if (dtype != UFBERT_F32) {
        work.scratch = malloc((size_t)threads * NODES_IN_BLOCK * (size_t)rows->width * sizeof(float));
        if (!work.scratch)
            return -1;
    }
    ufbert_share(team, threads, (rows->nodes + NODES_IN_BLOCK - 1) / NODES_IN_BLOCK, pack_block, &work);
    free(work.scratch);
    return 0;
}
