/* A tile of a linear layer in int8: inputs are bytes with a row's own step, sums are exact. */
#ifndef UFBERT_INT8_TILE_H
#define UFBERT_INT8_TILE_H

#include "tile.h"

/* Steps of the loop that an int32 can sum: 65,536 * 255 * 128 < 2^31. */
enum { INT8_STEPS = 65536 / INT8_PRODUCTS };
_Static_assert((long long)INT8_STEPS * INT8_PRODUCTS * 255 * 128 <= INT32_MAX, "int8 sums fit an int32");

INLINE ptrdiff_t int8_steps(ptrdiff_t width) { return (width + INT8_PRODUCTS - 1) / INT8_PRODUCTS; }

/* Sums over steps first to last - 1, of the columns of a tile. totals: of the inputs of these steps, by row. */
INLINE void int8_tile_sums(const int rows, const int8_input *x, const int8_t *weights, ptrdiff_t steps, ptrdiff_t first,
                           ptrdiff_t last, const int32_t *totals, fetching *fetch, vec dots[][VECTORS_AT_ONCE]) {
    int8_sums sums[TILE_ROWS][VECTORS_AT_ONCE];
    weights += first * PANEL * INT8_PRODUCTS;
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
        sums[i][0] = sums[i][1] = int8_zero();
    for (ptrdiff_t p = first; p < last; p++, weights += PANEL * INT8_PRODUCTS) {
        const int8_weights w0 = int8_load(weights), w1 = int8_load_next(weights, w0);
        if (fetch)
            fetch_line(fetch);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const int8_inputs some = int8_set(x + (i * steps + p) * INT8_PRODUCTS);
            sums[i][0] = int8_dot(sums[i][0], some, w0);
            sums[i][1] = int8_dot(sums[i][1], some, w1);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        dots[i][0] = int8_float(int8_first(sums[i][0], sums[i][1], totals[i]));
        dots[i][1] = int8_float(sums[i][1]);
    }
}

/* 128 times the sum of the inputs of some steps; 0 where the weights do not lie in words. */
INLINE int32_t int8_total(const int8_input *x, ptrdiff_t first, ptrdiff_t last) {
    int32_t total = 0;
    for (ptrdiff_t i = first * INT8_PRODUCTS; INT8_WORDS && i < last * INT8_PRODUCTS; i++)
        total += 128 * x[i];
    return total;
}

/* Adds the products beyond the first INT8_STEPS steps, whose sums would overflow: rare, so row by row. */
static __attribute__((noinline)) void add_int8_rest(int rows, const int8_input *x, const int8_t *weights,
                                                    ptrdiff_t steps, vec dots[][VECTORS_AT_ONCE]) {
    for (int i = 0; i < rows; i++, x += steps * INT8_PRODUCTS)
        for (ptrdiff_t first = INT8_STEPS; first < steps; first += INT8_STEPS) {
            const ptrdiff_t last = steps - first < INT8_STEPS ? steps : first + INT8_STEPS;
            const int32_t total = int8_total(x, first, last);
            vec more[1][VECTORS_AT_ONCE];
            int8_tile_sums(1, x, weights, steps, first, last, &total, NULL, more);
            dots[i][0] = v_add(dots[i][0], more[0][0]);
            dots[i][1] = v_add(dots[i][1], more[0][1]);
        }
}

INLINE void int8_tile(const int rows, const ufbert_linear *linear, const tile_inputs *in, ptrdiff_t row,
                      ptrdiff_t column, const int8_t *weights, fetching *fetch, vec sums[][VECTORS_AT_ONCE]) {
    const ptrdiff_t steps = int8_steps(linear->width_in);
    const int8_input *x = in->int8 + row * steps * INT8_PRODUCTS;
    int8_tile_sums(rows, x, weights, steps, 0, steps < INT8_STEPS ? steps : INT8_STEPS, in->totals + row, fetch, sums);
    if (steps > INT8_STEPS)
        add_int8_rest(rows, x, weights, steps, sums);
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

/* The least and the largest value of a row; both NaN where one of its values is. */
INLINE void range_of(const float *x, ptrdiff_t n, float *least, float *largest) {
    float lows[LANES], highs[LANES], totals[LANES];
    vec low = v_set(x[0]), high = low, total = v_set(0.0f);
    float nan = 0.0f;
    ptrdiff_t i = 0;
    *least = *largest = x[0];
    for (; i + LANES <= n; i += LANES) {
        const vec values = v_load(x + i);
        low = v_min(values, low);
        high = v_max(values, high);
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
static void quantize_row(const float *x, ptrdiff_t n, int8_input *bytes, float *low, float *step) {
    const ptrdiff_t padded = int8_steps(n) * INT8_PRODUCTS;
    float least, largest;
    range_of(x, n, &least, &largest);
    const float range = largest - least, factor = range > UFBERT_SMALLEST_RANGE ? 255.0f / range : 0.0f;
    *low = least;
    *step = range <= FLT_MAX ? range / 255.0f : NAN;
    if (!(range <= FLT_MAX)) {
        memset(bytes, 0, (size_t)padded * sizeof *bytes);
        return;
    }
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES)
        v_store_int8_inputs(bytes + i, v_mul(v_sub(v_load(x + i), v_set(least)), v_set(factor)));
    for (; i < n; i++)
        bytes[i] = (int8_input)((x[i] - least) * factor + 0.5f);
    for (; i < padded; i++)
        bytes[i] = 0;
#ifdef INT8_SIGNED
    *low += 128.0f * *step;
    for (i = 0; i < padded; i++)
        bytes[i] ^= 0x80;
#endif
}

static void quantize_rows(const float *x, ptrdiff_t rows, ptrdiff_t n, int8_input *bytes, float *lows, float *steps,
                          int32_t *totals) {
    const ptrdiff_t length = int8_steps(n);
    for (ptrdiff_t row = 0; row < rows; row++, x += n, bytes += length * INT8_PRODUCTS) {
        quantize_row(x, n, bytes, lows + row, steps + row);
        totals[row] = int8_total(bytes, 0, length < INT8_STEPS ? length : INT8_STEPS);
    }
}

#endif
