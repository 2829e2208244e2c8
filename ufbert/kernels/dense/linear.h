/* Linear layers: up to TILE_ROWS rows of x meet two vectors of columns, all sums in registers. */
#ifndef UFBERT_LINEAR_H
#define UFBERT_LINEAR_H

#include "dense.h"
#include "gelu.h"
#include "tile.h"

/* A tile's inputs as its dtype wants them. int8: value i is about lows[row] + steps[row] * byte i. */
typedef struct {
    const float *f32;     /* (rows, width_in) */
    const uint16_t *bf16; /* (rows, pairs, 2) */
    const uint8_t *int8;  /* (rows, groups, 4) */
    const float *lows, *steps;
} tile_inputs;

/* Groups of four products of bytes that an int32 can sum: 4 * 16,384 * 255 * 128 < 2^31. */
enum { INT8_GROUPS = 16384 };
_Static_assert(INT8_GROUPS * 4LL * 255 * 128 <= INT32_MAX, "int8 sums fit an int32");

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

INLINE void start_at_bias(const int rows, const float *bias, vec sums[][VECTORS_AT_ONCE]) {
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        sums[i][0] = v_load(bias);
        sums[i][1] = v_load(bias + LANES);
    }
}

/* Sums over products p first to last - 1, of the columns of a tile. */
INLINE void int8_tile_sums(const int rows, const uint8_t *x, const int8_t *weights, ptrdiff_t groups, ptrdiff_t first,
                           ptrdiff_t last, vec dots[][VECTORS_AT_ONCE]) {
    int8_sums sums[TILE_ROWS][VECTORS_AT_ONCE];
    weights += first * PANEL * 4;
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
        sums[i][0] = sums[i][1] = int8_zero();
    for (ptrdiff_t p = first; p < last; p++, weights += PANEL * 4) {
        const int8_weights w0 = int8_load(weights), w1 = int8_load(weights + LANES * 4);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const int8_four four = int8_set_four(x + (i * groups + p) * 4);
            sums[i][0] = int8_dot(sums[i][0], four, w0);
            sums[i][1] = int8_dot(sums[i][1], four, w1);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        dots[i][0] = int8_float(sums[i][0]);
        dots[i][1] = int8_float(sums[i][1]);
    }
}

/* Adds the products beyond the first INT8_GROUPS groups, whose sums would overflow: rare, so row by row. */
static __attribute__((noinline)) void add_int8_rest(int rows, const uint8_t *x, const int8_t *weights, ptrdiff_t groups,
                                                    vec dots[][VECTORS_AT_ONCE]) {
    for (int i = 0; i < rows; i++)
        for (ptrdiff_t first = INT8_GROUPS; first < groups; first += INT8_GROUPS) {
            const ptrdiff_t last = groups - first < INT8_GROUPS ? groups : first + INT8_GROUPS;
            vec more[1][VECTORS_AT_ONCE];
            int8_tile_sums(1, x + i * groups * 4, weights, groups, first, last, more);
            dots[i][0] = v_add(dots[i][0], more[0][0]);
            dots[i][1] = v_add(dots[i][1], more[0][1]);
        }
}

INLINE void int8_tile(const int rows, const ufbert_linear *linear, const tile_inputs *in, ptrdiff_t row,
                      ptrdiff_t column, const int8_t *weights, vec sums[][VECTORS_AT_ONCE]) {
    const ptrdiff_t groups = (linear->width_in + 3) / 4;
    const uint8_t *x = in->int8 + row * groups * 4;
    int8_tile_sums(rows, x, weights, groups, 0, groups < INT8_GROUPS ? groups : INT8_GROUPS, sums);
    if (groups > INT8_GROUPS)
        add_int8_rest(rows, x, weights, groups, sums);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 2
        for (int j = 0; j < VECTORS_AT_ONCE; j++) {
            const ptrdiff_t at = column + j * LANES;
            const vec whole = v_mul(v_set(in->lows[row + i]), v_load(linear->sums + at));
            const vec dots = v_fma(v_set(in->steps[row + i]), sums[i][j], whole);
            sums[i][j] = v_fma(dots, v_load(linear->scales + at), v_load(linear->bias + at));
        }
    }
}

/* Inputs and weights in bfloat16, sums in float32. */
INLINE void bf16_tile(const int rows, const ufbert_linear *linear, const tile_inputs *in, ptrdiff_t row,
                      ptrdiff_t column, const uint16_t *weights, vec sums[][VECTORS_AT_ONCE]) {
    const ptrdiff_t pairs = (linear->width_in + 1) / 2;
    const uint16_t *x = in->bf16 + row * pairs * 2;
    start_at_bias(rows, linear->bias + column, sums);
    for (ptrdiff_t p = 0; p < pairs; p++, weights += PANEL * 2) {
        const bf16_weights w0 = bf16_load(weights), w1 = bf16_load(weights + LANES * 2);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const bf16_pair pair = bf16_set_pair(x + (i * pairs + p) * 2);
            sums[i][0] = bf16_dot(sums[i][0], pair, w0);
            sums[i][1] = bf16_dot(sums[i][1], pair, w1);
        }
    }
}

INLINE void f32_tile(const int rows, const ufbert_linear *linear, const tile_inputs *in, ptrdiff_t row,
                     ptrdiff_t column, const float *weights, fetching *fetch, vec sums[][VECTORS_AT_ONCE]) {
    const ptrdiff_t k = linear->width_in;
    start_at_bias(rows, linear->bias + column, sums);
    multiply(rows, 2, in->f32 + row * k, k, weights, PANEL, k, fetch, sums);
}

/* Rows of y from `row` on, in the columns of one panel. */
INLINE void tile(const int rows, const ufbert_dtype dtype, const ufbert_linear *linear, const tile_inputs *in,
                 ptrdiff_t row, const float *residual, float *y, ptrdiff_t panel, fetching *fetch) {
    const ptrdiff_t k = linear->width_in, n = linear->width_out;
    for (int part = 0; part < PANEL; part += COLUMNS_AT_ONCE) {
        const ptrdiff_t column = panel * PANEL + part;
        vec sums[TILE_ROWS][VECTORS_AT_ONCE];
        if (dtype == UFBERT_INT8)
            int8_tile(rows, linear, in, row, column,
                      (const int8_t *)linear->weights + (panel * ((k + 3) / 4) * PANEL + part) * 4, sums);
        else if (dtype == UFBERT_BF16)
            bf16_tile(rows, linear, in, row, column,
                      (const uint16_t *)linear->weights + (panel * ((k + 1) / 2) * PANEL + part) * 2, sums);
        else
            f32_tile(rows, linear, in, row, column, (const float *)linear->weights + panel * k * PANEL + part, fetch,
                     sums);
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

static void round_row(const float *x, ptrdiff_t n, uint16_t *bf16, ptrdiff_t padded) {
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES)
        v_store_bf16(bf16 + i, v_load(x + i));
    for (; i < padded; i++)
        bf16[i] = i < n ? ufbert_bf16(x[i]) : 0;
}

/* The least and the largest value of a row; both NaN where one of its values is. */
INLINE void range_of(const float *x, ptrdiff_t n, float *least, float *largest) {
    float lows[LANES], highs[LANES], totals[LANES];
    vec low = v_set(x[0]), high = low, total = v_set(0.0f);
    float nan = 0.0f;
    ptrdiff_t i = 0;
    *least = *largest = x[0];
    for (; i + LANES <= n; i += LANES) {
        const vec values = v_load(x + i);
        low = v_if_greater(low, values, values, low);
        high = v_if_greater(values, high, values, high);
        total = v_add(total, values); /* comparisons leave NaN out, sums do not */
    }
    v_store(lows, low);
    v_store(highs, high);
    v_store(totals, total);
    for (int lane = 0; lane < LANES; lane++) {
        *least = lows[lane] < *least ? lows[lane] : *least;
        *largest = highs[lane] > *largest ? highs[lane] : *largest;
        nan = totals[lane] != totals[lane] ? totals[lane] : nan;
    }
    for (; i < n; i++) {
        *least = x[i] < *least ? x[i] : *least;
        *largest = x[i] > *largest ? x[i] : *largest;
        nan = x[i] != x[i] ? x[i] : nan;
    }
    if (nan != nan)
        *least = *largest = nan;
}

/* A row as bytes: x is about low + step * byte, with the row's own low and step. Where a value is not finite, step and
 * so all outputs are NaN. INT8_SIGNED: bytes from -128 on, so that `low` is what 0 stands for. */
static void quantize_row(const float *x, ptrdiff_t n, uint8_t *bytes, ptrdiff_t padded, float *low, float *step) {
    float least, largest;
    range_of(x, n, &least, &largest);
    const float range = largest - least, factor = range > UFBERT_SMALLEST_RANGE ? 255.0f / range : 0.0f;
    *low = least;
    *step = range <= FLT_MAX ? range / 255.0f : NAN;
    if (!(range <= FLT_MAX)) {
        memset(bytes, 0, (size_t)padded);
        return;
    }
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES)
        v_store_uint8(bytes + i, v_mul(v_sub(v_load(x + i), v_set(least)), v_set(factor)));
    for (; i < n; i++)
        bytes[i] = (uint8_t)((x[i] - least) * factor + 0.5f);
    for (; i < padded; i++)
        bytes[i] = 0;
#ifdef INT8_SIGNED
    *low += 128.0f * *step;
    for (i = 0; i < padded; i++)
        bytes[i] ^= 0x80;
#endif
}

/* The lines of a panel, shared out evenly over the tiles of the rows. */
INLINE fetching fetch_panel(const ufbert_linear *linear, ptrdiff_t rows, ptrdiff_t panel) {
    const ptrdiff_t bytes = PANEL * linear->width_in * (ptrdiff_t)sizeof(float),
                    tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    return (fetching){(const char *)linear->weights + panel * bytes,
                      rows <= FETCH_ROWS ? UFBERT_CACHE_LINE / tiles : 0};
}

static void linear(const ufbert_linear *linear, const float *x, ptrdiff_t rows, const float *residual, float *y,
                   ptrdiff_t first, ptrdiff_t last, void *scratch) {
    const ptrdiff_t k = linear->width_in, n = linear->width_out, groups = (k + 3) / 4, pairs = (k + 1) / 2;
    float *steps = scratch, *lows = steps + UFBERT_ROWS_IN_CHUNK;
    uint8_t *int8 = (uint8_t *)(lows + UFBERT_ROWS_IN_CHUNK);
    uint16_t *bf16 = (uint16_t *)int8;
    for (ptrdiff_t done = 0; done < rows; done += UFBERT_ROWS_IN_CHUNK) {
        const ptrdiff_t now = rows - done < UFBERT_ROWS_IN_CHUNK ? rows - done : UFBERT_ROWS_IN_CHUNK;
        const float *residual_now = residual ? residual + done * n : NULL;
        const tile_inputs in = {x + done * k, bf16, int8, lows, steps};
        if (linear->dtype == UFBERT_INT8)
            for (ptrdiff_t i = 0; i < now; i++)
                quantize_row(in.f32 + i * k, k, int8 + i * groups * 4, groups * 4, lows + i, steps + i);
        if (linear->dtype == UFBERT_BF16)
            for (ptrdiff_t i = 0; i < now; i++)
                round_row(in.f32 + i * k, k, bf16 + i * pairs * 2, pairs * 2);
        for (ptrdiff_t panel = first; panel < last; panel++) {
            const fetching fetch = fetch_panel(linear, rows, panel + 1 < last ? panel + 1 : panel);
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
