/* Linear layers: up to TILE_ROWS rows of x meet two vectors of columns, all sums in registers. */
#include <string.h>

enum { VECTORS_AT_ONCE = 2, COLUMNS_AT_ONCE = VECTORS_AT_ONCE * LANES };

/* sums[i][j] += a[i][:k] . b[:k][j], where b's rows are `ldb` floats apart. */
INLINE void multiply(const int rows, const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb, ptrdiff_t k,
                     vec sums[][VECTORS_AT_ONCE]) {
    for (ptrdiff_t p = 0; p < k; p++, b += ldb) {
        const vec b0 = v_load(b), b1 = v_load(b + LANES);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const vec x = v_set(a[i * lda + p]);
            sums[i][0] = v_fma(x, b0, sums[i][0]);
            sums[i][1] = v_fma(x, b1, sums[i][1]);
        }
    }
}

/* One row's columns from `column` on: activation, residual, store. */
INLINE void finish_row(const ufbert_linear *layer, vec sums[VECTORS_AT_ONCE], const float *residual, float *y,
                       ptrdiff_t column) {
#pragma GCC unroll 2
    for (int j = 0; j < VECTORS_AT_ONCE; j++, column += LANES) {
        const ptrdiff_t left = layer->width_out - column;
        vec value = sums[j];
        if (layer->activation != UFBERT_NO_ACTIVATION)
            value = v_activate(layer->activation, value);
        if (left >= LANES) {
            if (residual)
                value = v_add(value, v_load(residual + column));
            v_store(y + column, value);
        } else if (left > 0) {
            if (residual)
                value = v_add(value, v_load_part(residual + column, left));
            v_store_part(y + column, value, left);
        }
    }
}

INLINE void linear_tile(const int rows, const ufbert_linear *layer, const float *x, const float *residual, float *y,
                        ptrdiff_t panel) {
    const ptrdiff_t k = layer->width_in, n = layer->width_out;
    for (int part = 0; part < UFBERT_PANEL; part += COLUMNS_AT_ONCE) {
        const ptrdiff_t column = panel * UFBERT_PANEL + part;
        vec sums[TILE_ROWS][VECTORS_AT_ONCE];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            sums[i][0] = v_load(layer->bias + column);
            sums[i][1] = v_load(layer->bias + column + LANES);
        }
        multiply(rows, x, k, layer->floats + panel * k * UFBERT_PANEL + part, UFBERT_PANEL, k, sums);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
            finish_row(layer, sums[i], residual ? residual + i * n : NULL, y + i * n, column);
    }
}

/* sums[i][j] += the dot products of bytes: `groups` groups of four. */
INLINE void int8_tile(const int rows, const ufbert_linear *layer, const uint8_t *bytes, ptrdiff_t groups,
                      const float *steps, const float *lows, const float *residual, float *y, ptrdiff_t panel) {
    const ptrdiff_t n = layer->width_out;
    for (int part = 0; part < UFBERT_PANEL; part += COLUMNS_AT_ONCE) {
        const ptrdiff_t column = panel * UFBERT_PANEL + part;
        const int8_t *b = layer->bytes + (panel * groups * UFBERT_PANEL + part) * 4;
        ivec sums[TILE_ROWS][VECTORS_AT_ONCE];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
            sums[i][0] = sums[i][1] = iv_zero();
        for (ptrdiff_t p = 0; p < groups; p++, b += UFBERT_PANEL * 4) {
            const iv_weights b0 = iv_load(b), b1 = iv_load(b + LANES * 4);
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++) {
                const iv_four x = iv_set_four(bytes + (i * groups + p) * 4);
                sums[i][0] = iv_dot(sums[i][0], x, b0);
                sums[i][1] = iv_dot(sums[i][1], x, b1);
            }
        }
        for (int i = 0; i < rows; i++) {
            vec values[VECTORS_AT_ONCE];
#pragma GCC unroll 2
            for (int j = 0; j < VECTORS_AT_ONCE; j++) {
                const ptrdiff_t at = column + j * LANES;
                const vec whole = v_mul(v_set(lows[i]), v_load(layer->sums + at));
                const vec dots = v_fma(v_set(steps[i]), iv_float(sums[i][j]), whole);
                values[j] = v_fma(dots, v_load(layer->scales + at), v_load(layer->bias + at));
            }
            finish_row(layer, values, residual ? residual + i * n : NULL, y + i * n, column);
        }
    }
}

/* Inputs and weights in bfloat16, sums in float32. */
INLINE void bfloat16_tile(const int rows, const ufbert_linear *layer, const uint16_t *halves, ptrdiff_t pairs,
                          const float *residual, float *y, ptrdiff_t panel) {
    const ptrdiff_t n = layer->width_out;
    for (int part = 0; part < UFBERT_PANEL; part += COLUMNS_AT_ONCE) {
        const ptrdiff_t column = panel * UFBERT_PANEL + part;
        const uint16_t *b = layer->halves + (panel * pairs * UFBERT_PANEL + part) * 2;
        vec sums[TILE_ROWS][VECTORS_AT_ONCE];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            sums[i][0] = v_load(layer->bias + column);
            sums[i][1] = v_load(layer->bias + column + LANES);
        }
        for (ptrdiff_t p = 0; p < pairs; p++, b += UFBERT_PANEL * 2) {
            const bf_weights b0 = bf_load(b), b1 = bf_load(b + LANES * 2);
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++) {
                const bf_two x = bf_set_two(halves + (i * pairs + p) * 2);
                sums[i][0] = bf_dot(sums[i][0], x, b0);
                sums[i][1] = bf_dot(sums[i][1], x, b1);
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
            finish_row(layer, sums[i], residual ? residual + i * n : NULL, y + i * n, column);
    }
}

static void halve_row(const float *x, ptrdiff_t n, uint16_t *halves, ptrdiff_t padded) {
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES)
        v_store_halves(halves + i, v_load(x + i));
    for (; i < padded; i++)
        halves[i] = i < n ? ufbert_bfloat16(x[i]) : 0;
}

/* A row as bytes: x is about low + step * byte, with the row's own low and step. */
static void quantize_row(const float *x, ptrdiff_t n, uint8_t *bytes, ptrdiff_t padded, float *low, float *step) {
    float least = x[0], most = x[0];
    for (ptrdiff_t i = 0; i < n; i++) {
        least = x[i] < least ? x[i] : least;
        most = x[i] > most ? x[i] : most;
    }
    const float range = most - least;
    const vec by = v_set(range > 0.0f ? 255.0f / range : 0.0f), from = v_set(least);
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES)
        v_store_bytes(bytes + i, v_mul(v_sub(v_load(x + i), from), by));
    for (; i < n; i++)
        bytes[i] = (uint8_t)((x[i] - least) * (range > 0.0f ? 255.0f / range : 0.0f) + 0.5f);
    for (; i < padded; i++)
        bytes[i] = 0;
    *low = least;
    *step = range / 255.0f;
}

#define LINEAR_CASES(call)                                                                                            \
    switch (now) {                                                                                                    \
    case 1: call(1); break;                                                                                           \
    case 2: call(2); break;                                                                                           \
    case 3: call(3); break;                                                                                           \
    case 4: call(4); break;                                                                                           \
    LINEAR_CASES_ABOVE_4(call)                                                                                        \
    }
#if TILE_ROWS == 8
#define LINEAR_CASES_ABOVE_4(call)                                                                                    \
    case 5: call(5); break;                                                                                           \
    case 6: call(6); break;                                                                                           \
    case 7: call(7); break;                                                                                           \
    case 8: call(8); break;
#else
#define LINEAR_CASES_ABOVE_4(call)
#endif

static void linear_chunk(const ufbert_linear *layer, const float *x, ptrdiff_t rows, const float *residual, float *y,
                         ptrdiff_t panel) {
    const ptrdiff_t k = layer->width_in, n = layer->width_out;
    for (ptrdiff_t row = 0; row < rows; row += TILE_ROWS) {
        const int now = rows - row < TILE_ROWS ? (int)(rows - row) : TILE_ROWS;
        const float *from = x + row * k, *more = residual ? residual + row * n : NULL;
        float *to = y + row * n;
#define CALL(count) linear_tile(count, layer, from, more, to, panel)
        LINEAR_CASES(CALL)
#undef CALL
    }
}

static void int8_chunk(const ufbert_linear *layer, const uint8_t *bytes, ptrdiff_t groups, const float *steps,
                       const float *lows, ptrdiff_t rows, const float *residual, float *y, ptrdiff_t panel) {
    const ptrdiff_t n = layer->width_out;
    for (ptrdiff_t row = 0; row < rows; row += TILE_ROWS) {
        const int now = rows - row < TILE_ROWS ? (int)(rows - row) : TILE_ROWS;
        const uint8_t *from = bytes + row * groups * 4;
        const float *more = residual ? residual + row * n : NULL, *step = steps + row, *low = lows + row;
        float *to = y + row * n;
#define CALL(count) int8_tile(count, layer, from, groups, step, low, more, to, panel)
        LINEAR_CASES(CALL)
#undef CALL
    }
}

static void bfloat16_chunk(const ufbert_linear *layer, const uint16_t *halves, ptrdiff_t pairs, ptrdiff_t rows,
                           const float *residual, float *y, ptrdiff_t panel) {
    const ptrdiff_t n = layer->width_out;
    for (ptrdiff_t row = 0; row < rows; row += TILE_ROWS) {
        const int now = rows - row < TILE_ROWS ? (int)(rows - row) : TILE_ROWS;
        const uint16_t *from = halves + row * pairs * 2;
        const float *more = residual ? residual + row * n : NULL;
        float *to = y + row * n;
#define CALL(count) bfloat16_tile(count, layer, from, pairs, more, to, panel)
        LINEAR_CASES(CALL)
#undef CALL
    }
}

static void linear(const ufbert_linear *layer, const float *x, ptrdiff_t rows, const float *residual, float *y,
                   ptrdiff_t first, ptrdiff_t last, void *scratch) {
    const ptrdiff_t k = layer->width_in, n = layer->width_out, groups = (k + 3) / 4, pairs = (k + 1) / 2;
    float *steps = scratch, *lows = steps + UFBERT_ROWS_IN_CHUNK;
    uint8_t *bytes = (uint8_t *)(lows + UFBERT_ROWS_IN_CHUNK);
    uint16_t *halves = (uint16_t *)bytes;
    for (ptrdiff_t done = 0; done < rows; done += UFBERT_ROWS_IN_CHUNK) {
        const ptrdiff_t now = rows - done < UFBERT_ROWS_IN_CHUNK ? rows - done : UFBERT_ROWS_IN_CHUNK;
        const float *more = residual ? residual + done * n : NULL;
        if (layer->bytes)
            for (ptrdiff_t i = 0; i < now; i++)
                quantize_row(x + (done + i) * k, k, bytes + i * groups * 4, groups * 4, lows + i, steps + i);
        if (layer->halves)
            for (ptrdiff_t i = 0; i < now; i++)
                halve_row(x + (done + i) * k, k, halves + i * pairs * 2, pairs * 2);
        for (ptrdiff_t panel = first; panel < last; panel++)
            if (layer->halves)
                bfloat16_chunk(layer, halves, pairs, now, more, y + done * n, panel);
            else if (layer->bytes)
                int8_chunk(layer, bytes, groups, steps, lows, now, more, y + done * n, panel);
            else
                linear_chunk(layer, x + done * k, now, more, y + done * n, panel);
    }
}
