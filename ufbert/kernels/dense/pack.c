/* Packing and scratch of linear layers and attention: the same for every instruction set. */
#include "dense.h"

#ifdef _OPENMP
#define FOR_THREADS _Pragma("omp parallel for num_threads(threads) schedule(static)")
#else
#define FOR_THREADS
#endif

enum { UNITS_IN_LINE = 16 }; /* floats of a cache line */

/* Elements of a row of packed weights: int8 go by fours, bfloat16 by pairs. */
static ptrdiff_t padded_width(ptrdiff_t width_in, ufbert_dtype dtype) {
    return ufbert_round_up(width_in, dtype == UFBERT_INT8 ? 4 : dtype == UFBERT_BF16 ? 2 : 1);
}

size_t ufbert_linear_bytes(const ufbert_layout *layout, ptrdiff_t width_in, ptrdiff_t width_out, ufbert_dtype dtype) {
    const ptrdiff_t columns = ufbert_round_up(width_out, layout->panel);
    return (size_t)(columns * padded_width(width_in, dtype)) * ufbert_item_size(dtype);
}

size_t ufbert_linear_scratch(const ufbert_linear *linear) {
    const size_t row = (size_t)padded_width(linear->width_in, linear->dtype) * ufbert_item_size(linear->dtype);
    return UFBERT_ROWS_IN_CHUNK * (2 * sizeof(float) + (linear->dtype == UFBERT_F32 ? 0 : row));
}

size_t ufbert_attention_scratch(ptrdiff_t length, ptrdiff_t head_size) {
    const ptrdiff_t keys = ufbert_round_up(length, 2 * UFBERT_MOST_LANES), rows = UFBERT_MOST_TILE_ROWS;
    const ptrdiff_t columns = ufbert_round_up(head_size, 2 * UFBERT_MOST_LANES);
    return (size_t)((keys + 16) * head_size + length * columns + 2 * keys + rows * keys + rows * columns) *
           sizeof(float);
}

static void pack_f32(ptrdiff_t width, const float *weight, ptrdiff_t k, ptrdiff_t n, float *panels, int threads) {
    (void)threads;
    FOR_THREADS
    for (ptrdiff_t first = 0; first < n; first += width) {
        float *panel = panels + first * k;
        const ptrdiff_t columns = n - first < width ? n - first : width;
        for (ptrdiff_t block = 0; block < k; block += UNITS_IN_LINE)
            for (ptrdiff_t column = 0; column < columns; column++)
                for (ptrdiff_t p = block; p < k && p < block + UNITS_IN_LINE; p++)
                    panel[p * width + column] = weight[(first + column) * k + p];
    }
}

static void pack_bf16(ptrdiff_t width, const float *weight, ptrdiff_t k, ptrdiff_t n, uint16_t *panels, int threads) {
    const ptrdiff_t pairs = (k + 1) / 2;
    (void)threads;
    FOR_THREADS
    for (ptrdiff_t column = 0; column < n; column++) {
        uint16_t *to = panels + (column / width * pairs * width + column % width) * 2;
        for (ptrdiff_t p = 0; p < k; p++)
            to[p / 2 * width * 2 + p % 2] = ufbert_bf16(weight[column * k + p]);
    }
}

static void pack_int8(ptrdiff_t width, const float *weight, ptrdiff_t k, ptrdiff_t n, int8_t *panels, float *scales,
                      float *sums, int threads) {
    const ptrdiff_t groups = (k + 3) / 4;
    (void)threads;
    FOR_THREADS
    for (ptrdiff_t column = 0; column < n; column++) {
        const float *row = weight + column * k;
        int8_t *to = panels + (column / width * groups * width + column % width) * 4;
        float factor;
        int32_t sum = 0;
        scales[column] = ufbert_int8_scale(row, k, &factor);
        for (ptrdiff_t p = 0; p < k && factor > 0.0f; p++) {
            const int rounded = ufbert_nearest(row[p] * factor);
            to[p / 4 * width * 4 + p % 4] = (int8_t)rounded;
            sum += rounded;
        }
        sums[column] = (float)sum;
    }
}

void ufbert_pack_linear_int8(const ufbert_layout *layout, const int8_t *weight, ptrdiff_t k, ptrdiff_t n,
                             int8_t *panels, float *sums, int threads) {
    const ptrdiff_t groups = (k + 3) / 4, width = layout->panel;
    (void)threads;
    FOR_THREADS
    for (ptrdiff_t column = 0; column < n; column++) {
        const int8_t *row = weight + column * k;
        int8_t *to = panels + (column / width * groups * width + column % width) * 4;
        int32_t sum = 0;
        for (ptrdiff_t p = 0; p < k; p++) {
            to[p / 4 * width * 4 + p % 4] = row[p];
            sum += row[p];
        }
        sums[column] = (float)sum;
    }
}

void ufbert_pack_linear(const ufbert_layout *layout, ufbert_dtype dtype, const float *weight, ptrdiff_t width_in,
                        ptrdiff_t width_out, void *panels, float *scales, float *sums, int threads) {
    if (dtype == UFBERT_INT8)
        pack_int8(layout->panel, weight, width_in, width_out, panels, scales, sums, threads);
    else if (dtype == UFBERT_BF16)
        pack_bf16(layout->panel, weight, width_in, width_out, panels, threads);
    else
        pack_f32(layout->panel, weight, width_in, width_out, panels, threads);
}
