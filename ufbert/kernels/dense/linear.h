/* Linear layers: up to TILE_ROWS rows of x meet two vectors of columns, all sums in registers. */
#ifndef UFBERT_LINEAR_H
#define UFBERT_LINEAR_H

#include "bf16_tile.h"
#include "dense.h"
#include "gelu.h"
#include "int8_tile.h"
#include "tile.h"

/* Activation, residual, store: rows of y from their sums. A function of its own, because it is large
 * and every size of tile ends with it. */
static void finish_tile(const ufbert_linear *linear, vec sums[][VECTORS_AT_ONCE], int rows, const float *residual,
                        float *y, ptrdiff_t column) {
    const ptrdiff_t n = linear->width_out;
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 2
        for (int j = 0; j < VECTORS_AT_ONCE; j++) {
            const ptrdiff_t at = column + j * LANES, left = n - at;
            vec value = dense_activate(linear->activation, sums[i][j]);
            if (left >= LANES) {
                if (residual)
                    value = v_add(value, v_load(residual + i * n + at));
                v_store(y + i * n + at, value);
            } else if (left > 0) {
                if (residual)
                    value = v_add(value, v_load_part(residual + i * n + at, left));
                v_store_part(y + i * n + at, value, left);
            }
        }
    }
}

INLINE void f32_tile(const int rows, const ufbert_linear *linear, const tile_inputs *in, ptrdiff_t row,
                     ptrdiff_t column, const float *weights, fetching *fetch, vec dots[][VECTORS_AT_ONCE]) {
    const ptrdiff_t k = linear->width_in;
    vec sums[TILE_ROWS][VECTORS_AT_ONCE]; /* not dots: what nobody else can see stays in registers */
    start_at_bias(rows, linear->bias + column, sums);
    multiply(rows, 2, in->f32 + row * k, k, weights, PANEL, k, fetch, sums);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        dots[i][0] = sums[i][0];
        dots[i][1] = sums[i][1];
    }
}

INLINE const char *panel_of(const ufbert_linear *linear, ptrdiff_t panel) {
    const ptrdiff_t k = linear->width_in;
    const ptrdiff_t bytes = linear->dtype == UFBERT_INT8   ? int8_steps(k) * INT8_PRODUCTS
                            : linear->dtype == UFBERT_BF16 ? (k + 1) / 2 * 4
                                                           : k * 4;
    return (const char *)linear->weights + panel * PANEL * bytes;
}

/* Rows of y from `row` on, in the columns of one panel. */
INLINE void tile(const int rows, const ufbert_dtype dtype, const ufbert_linear *linear, const tile_inputs *in,
                 ptrdiff_t row, const float *residual, float *y, ptrdiff_t panel, fetching *fetch) {
    const ptrdiff_t n = linear->width_out;
    for (int part = 0; part < PANEL; part += COLUMNS_AT_ONCE) {
        const ptrdiff_t column = panel * PANEL + part;
        vec sums[TILE_ROWS][VECTORS_AT_ONCE];
        const char *weights = panel_of(linear, panel);
        if (dtype == UFBERT_INT8)
            int8_tile(rows, linear, in, row, column, (const int8_t *)weights + part * INT8_PRODUCTS, fetch, sums);
        else if (dtype == UFBERT_BF16)
            bf16_tile(rows, linear, in, row, column, (const uint16_t *)weights + part * 2, fetch, sums);
        else
            f32_tile(rows, linear, in, row, column, (const float *)weights + part, fetch, sums);
        finish_tile(linear, sums, rows, residual ? residual + row * n : NULL, y + row * n, column);
    }
}

INLINE void chunk(const ufbert_dtype dtype, const ufbert_linear *linear, const tile_inputs *in, ptrdiff_t rows,
                  const float *residual, float *y, ptrdiff_t panel, fetching fetch) {
    for (ptrdiff_t row = 0, now; row < rows; row += now) {
        now = tile_height(rows - row);
#define CALL(count) tile(count, dtype, linear, in, row, residual, y, panel, &fetch)
        SWITCH_ROWS(now, CALL)
#undef CALL
    }
}

/* Functions of their own, so that the registers of each dtype's loops are allotted apart. */
static __attribute__((noinline)) void f32_chunk(const ufbert_linear *linear, const tile_inputs *in, ptrdiff_t rows,
                                                const float *residual, float *y, ptrdiff_t panel, fetching fetch) {
    chunk(UFBERT_F32, linear, in, rows, residual, y, panel, fetch);
}
static __attribute__((noinline)) void bf16_chunk(const ufbert_linear *linear, const tile_inputs *in, ptrdiff_t rows,
                                                 const float *residual, float *y, ptrdiff_t panel, fetching fetch) {
    chunk(UFBERT_BF16, linear, in, rows, residual, y, panel, fetch);
}
static __attribute__((noinline)) void int8_chunk(const ufbert_linear *linear, const tile_inputs *in, ptrdiff_t rows,
                                                 const float *residual, float *y, ptrdiff_t panel, fetching fetch) {
    chunk(UFBERT_INT8, linear, in, rows, residual, y, panel, fetch);
}

/* The lines of a panel, shared out evenly over the tiles of the rows. */
INLINE fetching fetch_panel(const ufbert_linear *linear, ptrdiff_t rows, ptrdiff_t panel) {
    const ptrdiff_t bytes = linear->dtype == UFBERT_INT8 ? PANEL * INT8_PRODUCTS : PANEL * 4;
    const ptrdiff_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    return (fetching){panel_of(linear, panel), (bytes + tiles - 1) / tiles};
}

static void linear(const ufbert_linear *linear, const float *x, ptrdiff_t rows, const float *residual, float *y,
                   ptrdiff_t first, ptrdiff_t last, void *scratch) {
    const ptrdiff_t k = linear->width_in, n = linear->width_out;
    float *steps = scratch, *lows = steps + UFBERT_ROWS_IN_CHUNK;
    int32_t *totals = (int32_t *)(lows + UFBERT_ROWS_IN_CHUNK);
    void *narrow = totals + UFBERT_ROWS_IN_CHUNK;
    for (ptrdiff_t done = 0, now; done < rows; done += now) {
        now = rows_at_once(rows - done, UFBERT_ROWS_IN_CHUNK);
        const float *residual_now = residual ? residual + done * n : NULL;
        const tile_inputs in = {x + done * k, narrow, narrow, lows, steps, totals};
        if (linear->dtype == UFBERT_INT8)
            quantize_rows(in.f32, now, k, narrow, lows, steps, totals);
        if (linear->dtype == UFBERT_BF16)
            round_rows(in.f32, now, k, narrow);
        for (ptrdiff_t panel = first; panel < last; panel++) {
            const fetching fetch = fetch_panel(linear, now, panel + 1 < last ? panel + 1 : panel);
            if (linear->dtype == UFBERT_INT8)
                int8_chunk(linear, &in, now, residual_now, y + done * n, panel, fetch);
            else if (linear->dtype == UFBERT_BF16)
                bf16_chunk(linear, &in, now, residual_now, y + done * n, panel, fetch);
            else
                f32_chunk(linear, &in, now, residual_now, y + done * n, panel, fetch);
        }
    }
}

#endif
