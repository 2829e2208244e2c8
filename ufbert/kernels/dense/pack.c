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
    /* At most: int8 in 16 bits, bfloat16 as floats. */
    const size_t item = linear->dtype == UFBERT_INT8   ? sizeof(int16_t)
                        : linear->dtype == UFBERT_BF16 ? sizeof(float)
                                                       : 0;
    const size_t row = (size_t)padded_width(linear->width_in, linear->dtype) * item;
    return UFBERT_ROWS_IN_CHUNK * (2 * sizeof(float) + sizeof(int32_t) + row);
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
    int int8_words;
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

/* Up to BLOCK int8 of column `i` of a panel, where fours of them lie together or pairs in words; returns their sum. */
static int32_t lay_out(const packing *work, const int8_t *values, ptrdiff_t count, ptrdiff_t i, int8_t *panel) {
    const ptrdiff_t width = work->panel, half = width / 2;
    int8_t *column = panel + i * 4;
    int32_t sum = 0;
    for (ptrdiff_t p = 0; p < count; p++)
        sum += values[p];
    ptrdiff_t p = 0;
    if (work->int8_words) {
        column = panel + i % half * 4 + i / half;
        for (; p < count; p++)
            column[p / 2 * width * 2 + p % 2 * 2] = (int8_t)(values[p] ^ (i < half ? -128 : 0));
        return sum;
    }
    for (; p + 4 <= count; p += 4)
        memcpy(column + p * width, values + p, 4);
    memcpy(column + p * width, values + p, (size_t)(count - p));
    return sum;
}

static void round_block(const float *row, ptrdiff_t count, float factor, int8_t *rounded) {
    for (ptrdiff_t p = 0; p < count; p++)
        rounded[p] = factor > 0.0f ? (int8_t)ufbert_nearest(row[p] * factor) : 0;
}

/* `weight` is float32 or, where the scales are there already, int8. */
static void pack_int8(const packing *work, ptrdiff_t index) {
    const ptrdiff_t width = work->panel, k = work->k, columns = columns_in_panel(work, index);
    const ptrdiff_t padded = ufbert_round_up(k, work->int8_words ? 2 : 4);
    int8_t *panel = (int8_t *)work->panels + index * width * padded, rounded[BLOCK] = {0};
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
            const int8_t *values = wholes ? wholes + i * k + block : rounded;
            if (!wholes)
                round_block(floats + i * k + block, count, factors[i], rounded);
            sums[i] += lay_out(work, values, count, i, panel + block * width);
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
    packing work = {layout->panel, layout->int8_words, dtype, weight, width_in, width_out, panels, scales, sums};
    ufbert_share(team, threads, (width_out + layout->panel - 1) / layout->panel, pack_panel, &work);
}
