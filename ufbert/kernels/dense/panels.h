/* Weights into panels: compiled for each instruction set, with the same bits on all of them. */
#ifndef UFBERT_PANELS_H
#define UFBERT_PANELS_H

#include "dense.h"

enum { UNITS_IN_LINE = 16 }; /* floats of a cache line */

static ptrdiff_t columns_in_panel(const ufbert_packing *work, ptrdiff_t panel) {
    const ptrdiff_t left = work->width_out - panel * PANEL;
    return left < PANEL ? left : PANEL;
}

/* The rows of a panel's columns, as float32 or int8: where they are, or read into the thread's scratch. */
static const void *rows_of_panel(const ufbert_packing *work, ptrdiff_t index, int member) {
    const ufbert_stored *weight = work->weight;
    const ptrdiff_t width = weight->width;
    const size_t row = (size_t)width * ufbert_stored_size(weight->dtype);
    const ptrdiff_t start = index * PANEL;
    if (!work->scratch)
        return (const char *)weight->pieces[0].values + (size_t)start * row;
    char *rows = work->scratch + (size_t)member * work->for_panel, *next = rows;
    const size_t read = (size_t)width * (weight->dtype == UFBERT_STORED_INT8 ? sizeof(int8_t) : sizeof(float));
    ptrdiff_t first = start, left = columns_in_panel(work, index);
    for (const ufbert_piece *piece = weight->pieces; left > 0; first -= piece->rows, piece++) {
        if (first >= piece->rows)
            continue;
        const ptrdiff_t count = piece->rows - first < left ? piece->rows - first : left;
        ufbert_read_stored(weight->dtype, (const char *)piece->values + (size_t)first * row, count * width, next);
        next += (size_t)count * read;
        first += count;
        left -= count;
    }
    return rows;
}

static void pack_f32(const ufbert_packing *work, ptrdiff_t index, const float *rows) {
    const ptrdiff_t width = PANEL, k = work->weight->width, columns = columns_in_panel(work, index);
    float *panel = (float *)work->panels + index * width * k;
    for (ptrdiff_t block = 0; block < k; block += UNITS_IN_LINE)
        for (ptrdiff_t column = 0; column < columns; column++)
            for (ptrdiff_t p = block; p < k && p < block + UNITS_IN_LINE; p++)
                panel[p * width + column] = rows[column * k + p];
}

static void pack_bf16(const ufbert_packing *work, ptrdiff_t index, const float *rows) {
    const ptrdiff_t width = PANEL, k = work->weight->width, pairs = (k + 1) / 2,
                    columns = columns_in_panel(work, index);
    uint16_t *panel = (uint16_t *)work->panels + index * width * pairs * 2;
    for (ptrdiff_t block = 0; block < k; block += 2 * UNITS_IN_LINE)
        for (ptrdiff_t column = 0; column < columns; column++)
            for (ptrdiff_t p = block; p < k && p < block + 2 * UNITS_IN_LINE; p++)
                panel[(p / 2 * width + column) * 2 + p % 2] = ufbert_bf16(rows[column * k + p]);
}

enum { COLUMN_BLOCK = 64 }; /* of a column, which is rounded and summed before it is laid out */

/* Up to COLUMN_BLOCK int8 of column `i` of a panel, where fours of them lie together or pairs in words; returns their sum. */
static int32_t lay_out(const int8_t *values, ptrdiff_t count, ptrdiff_t i, int8_t *panel) {
    const ptrdiff_t width = PANEL, half = width / 2;
    int8_t *column = panel + i * 4;
    int32_t sum = 0;
    for (ptrdiff_t p = 0; p < count; p++)
        sum += values[p];
    ptrdiff_t p = 0;
    if (INT8_WORDS) {
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

/* `rows` are float32 or, where the scales are there already, int8. */
static void pack_int8(const ufbert_packing *work, ptrdiff_t index, const void *rows) {
    const ptrdiff_t width = PANEL, k = work->weight->width, columns = columns_in_panel(work, index);
    const ptrdiff_t padded = ufbert_round_up(k, INT8_WORDS ? 2 : 4);
    int8_t *panel = (int8_t *)work->panels + index * width * padded, rounded[COLUMN_BLOCK] = {0};
    float factors[PANEL];
    int32_t sums[PANEL] = {0};
    const ptrdiff_t first = index * width;
    const float *floats = work->scales ? rows : NULL;
    const int8_t *wholes = work->scales ? NULL : rows;
    for (ptrdiff_t i = 0; floats && i < columns; i++)
        work->scales[first + i] = ufbert_int8_scale(floats + i * k, k, &factors[i]);
    for (ptrdiff_t block = 0; block < k; block += COLUMN_BLOCK) {
        const ptrdiff_t count = k - block < COLUMN_BLOCK ? k - block : COLUMN_BLOCK;
        for (ptrdiff_t i = 0; i < columns; i++) {
            const int8_t *values = wholes ? wholes + i * k + block : rounded;
            if (!wholes)
                round_block(floats + i * k + block, count, factors[i], rounded);
            sums[i] += lay_out(values, count, i, panel + block * width);
        }
    }
    for (ptrdiff_t i = 0; i < columns; i++)
        work->sums[first + i] = (float)sums[i];
}

static void pack_panel(void *argument, ptrdiff_t index, int member) {
    const ufbert_packing *work = argument;
    const void *rows = rows_of_panel(work, index, member);
    if (work->dtype == UFBERT_INT8)
        pack_int8(work, index, rows);
    else if (work->dtype == UFBERT_BF16)
        pack_bf16(work, index, rows);
    else
        pack_f32(work, index, rows);
}

#endif
