/* Packing and scratch of linear layers and attention: the same for every instruction set. */
#include "dense.h"

#include <string.h>

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

/* A matrix on its way into panels. */
typedef struct {
    ptrdiff_t panel;
    ufbert_dtype dtype;
    const void *weight;
    ptrdiff_t k, n;
    void *panels;
    float *scales, *sums;
} packing;

static ptrdiff_t columns_in_panel(const packing *work, ptrdiff_t panel) {
    const ptrdiff_t left = work->n - panel * work->panel;
    return left < work->panel ? left : work->panel;
}

static void pack_f32(const packing *work, ptrdiff_t index) {
    const ptrdiff_t width = work->panel, k = work->k, columns = columns_in_panel(work, index);
    const float *rows = (const float *)work->weight + index * width * k;
    float *panel = (float *)work->panels + index * width * k;
    for (ptrdiff_t block = 0; block < k; block += UNITS_IN_LINE)
        for (ptrdiff_t column = 0; column < columns; column++)
            for (ptrdiff_t p = block; p < k && p < block + UNITS_IN_LINE; p++)
                panel[p * width + column] = rows[column * k + p];
}

static void pack_bf16(const packing *work, ptrdiff_t index) {
    const ptrdiff_t width = work->panel, k = work->k, pairs = (k + 1) / 2, columns = columns_in_panel(work, index);
    const float *rows = (const float *)work->weight + index * width * k;
    uint16_t *panel = (uint16_t *)work->panels + index * width * pairs * 2;
    for (ptrdiff_t block = 0; block < k; block += 2 * UNITS_IN_LINE)
        for (ptrdiff_t column = 0; column < columns; column++)
            for (ptrdiff_t p = block; p < k && p < block + 2 * UNITS_IN_LINE; p++)
                panel[(p / 2 * width + column) * 2 + p % 2] = ufbert_bf16(rows[column * k + p]);
}

enum { BLOCK = 64 }; /* of a column, which is rounded and summed before it is laid out */

/* Up to BLOCK int8 of a column into its panel, where fours of them lie together; returns their sum. */
static int32_t lay_out(const int8_t *values, ptrdiff_t count, ptrdiff_t width, int8_t *column) {
    int32_t sum = 0;
    for (ptrdiff_t p = 0; p < count; p++)
        sum += values[p];
    ptrdiff_t p = 0;
    for (; p + 4 <= count; p += 4)
        memcpy(column + p * width, values + p, 4);
    memcpy(column + p * width, values + p, (size_t)(count - p));
    return sum;
}

static void round_block(const float *row, ptrdiff_t count, float factor, int8_t *rounded) {
    for (ptrdiff_t p = 0; p < count; p++)
        rounded[p] = (int8_t)ufbert_nearest(row[p] * factor);
}

/* `weight` is float32 or, where the scales are there already, int8. */
static void pack_int8(const packing *work, ptrdiff_t index) {
    const ptrdiff_t width = work->panel, k = work->k, columns = columns_in_panel(work, index);
    int8_t *panel = (int8_t *)work->panels + index * width * padded_width(k, UFBERT_INT8), rounded[BLOCK];
    float factors[UFBERT_WIDEST_PANEL];
    int32_t sums[UFBERT_WIDEST_PANEL] = {0};
    const ptrdiff_t first = index * width;
    const float *floats = work->scales ? (const float *)work->weight + first * k : NULL;
    const int8_t *wholes = work->scales ? NULL : (const int8_t *)work->weight + first * k;
    for (ptrdiff_t i = 0; floats && i < columns; i++)
        work->scales[first + i] = ufbert_int8_scale(floats + i * k, k, &factors[i]);
    for (ptrdiff_t block = 0; block < k; block += BLOCK) {
        const ptrdiff_t count = k - block < BLOCK ? k - block : BLOCK;
        for (ptrdiff_t i = 0; i < columns; i++) {
            int8_t *column = panel + block * width + i * 4;
            if (wholes)
                sums[i] += lay_out(wholes + i * k + block, count, width, column);
            else if (factors[i] > 0.0f) {
                round_block(floats + i * k + block, count, factors[i], rounded);
                sums[i] += lay_out(rounded, count, width, column);
            }
        }
    }
    for (ptrdiff_t i = 0; i < columns; i++)
        work->sums[first + i] = (float)sums[i];
}

static void pack_panel(void *argument, ptrdiff_t index, int member) {
    const packing *work = argument;
    (void)member;
    if (work->dtype == UFBERT_INT8)
        pack_int8(work, index);
    else if (work->dtype == UFBERT_BF16)
        pack_bf16(work, index);
    else
        pack_f32(work, index);
}

void ufbert_pack_linear(const ufbert_layout *layout, ufbert_dtype dtype, const void *weight, ptrdiff_t width_in,
                        ptrdiff_t width_out, void *panels, float *scales, float *sums, ufbert_team *team, int threads) {
    packing work = {layout->panel, dtype, weight, width_in, width_out, panels, scales, sums};
    ufbert_share(team, threads, (width_out + layout->panel - 1) / layout->panel, pack_panel, &work);
}
