/* Linear layers: up to TILE_ROWS rows of x meet two vectors of columns, all sums in registers. */
#include <string.h>

enum { VECTORS_AT_ONCE = 2, COLUMNS_AT_ONCE = VECTORS_AT_ONCE * LANES };

/* sums[i][j] += a[i][:k] . b[:k][j], where b's rows are `ldb` floats apart; one vector of columns or two. */
INLINE void multiply(const int rows, const int vectors, const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb,
                     ptrdiff_t k, vec sums[][VECTORS_AT_ONCE]) {
    for (ptrdiff_t p = 0; p < k; p++, b += ldb) {
        const vec b0 = v_load(b), b1 = vectors == 2 ? v_load(b + LANES) : b0;
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const vec x = v_set(a[i * lda + p]);
            sums[i][0] = v_fma(x, b0, sums[i][0]);
            if (vectors == 2)
                sums[i][1] = v_fma(x, b1, sums[i][1]);
        }
    }
}

#ifdef TABLE_ENTRIES
/* GELU for layers of which it would take a third of the time: max(v, 0) - |v| * q(|v|), where q, the normal
 * distribution's tail, is a polynomial on each of 16 pieces of 0 to 6. To 2e-7 absolute; fitted at Chebyshev's points. */
static const float gelu_pieces[6][TABLE_ENTRIES] = {
    {4.256343139e-1f, 2.868877061e-1f, 1.742507150e-1f, 9.467574334e-2f, 4.575362334e-2f, 1.958007704e-2f,
      7.394606253e-3f, 2.457901109e-3f, 7.175425353e-4f, 1.836701848e-4f, 4.116759403e-5f, 8.070996396e-6f,
      1.382830287e-6f, 2.069014041e-7f, 2.701761577e-8f, 3.077503228e-9f},
    {-1.469965850e-1f, -1.277128476e-1f, -9.640271648e-2f, -6.322244557e-2f, -3.602306334e-2f, -1.783270892e-2f,
      -7.669752180e-3f, -2.865976905e-3f, -9.304465122e-4f, -2.624445491e-4f, -6.431484030e-5f, -1.369343607e-5f,
      -2.533036459e-6f, -4.070974778e-7f, -5.684386860e-8f, -6.896002976e-9f},
    {5.167703535e-3f, 1.346940581e-2f, 1.694556216e-2f, 1.555862557e-2f, 1.139803937e-2f, 6.896368284e-3f,
      3.505378425e-3f, 1.511359889e-3f, 5.560695127e-4f, 1.752881220e-4f, 4.747318671e-5f, 1.106864422e-5f,
      2.225085639e-6f, 3.861073484e-7f, 5.788574404e-8f, 7.503261764e-9f},
    {3.324051785e-3f, 2.046171951e-3f, 2.736432912e-4f, -1.070770816e-3f, -1.559942787e-3f, -1.359993104e-3f,
      -8.882818617e-4f, -4.641733356e-4f, -1.997602937e-4f, -7.191290196e-5f, -2.186131234e-5f, -5.646923870e-6f,
      -1.244766867e-6f, -2.348904834e-7f, -3.803348560e-8f, -5.293932855e-9f},
    {-1.780014442e-4f, -4.203035770e-4f, -4.187836614e-4f, -2.326535778e-4f, -2.160065496e-5f, 9.999738330e-5f,
      1.201681369e-4f, 8.691493734e-5f, 4.684935723e-5f, 2.008678445e-5f, 7.055882821e-6f, 2.063930702e-6f,
      5.078267729e-7f, 1.058129508e-7f, 1.876007052e-8f, 2.840069165e-9f},
    {-6.711822130e-5f, -2.522202414e-5f, 2.352955744e-5f, 4.516155114e-5f, 3.535360842e-5f, 1.308875863e-5f,
      -3.227452370e-6f, -8.482121177e-6f, -6.927986009e-6f, -3.814209710e-6f, -1.605952465e-6f, -5.423018072e-7f,
      -1.504188932e-7f, -3.475392930e-8f, -6.749709833e-9f, -1.108849123e-9f},
};

INLINE vec dense_gelu(vec v) {
    const vec zero = v_set(0.0f), end = v_set(5.9999995f), size = v_abs(v);
    const vec inside = v_if_greater(end, size, size, end), place = v_mul(inside, v_set(TABLE_ENTRIES / 6.0f));
    const vec piece = v_floor(place), t = v_sub(v_sub(place, piece), v_set(0.5f));
    const vec_index index = v_index(piece);
    vec tail = v_look_up(gelu_pieces[5], index);
#pragma GCC unroll 5
    for (int power = 4; power >= 0; power--)
        tail = v_fma(tail, t, v_look_up(gelu_pieces[power], index));
    return v_sub(v_if_greater(zero, v, zero, v), v_mul(inside, tail));
}
#else
INLINE vec dense_gelu(vec v) { return v_activate(UFBERT_GELU, v); }
#endif

INLINE vec dense_activate(int activation, vec v) {
    return activation == UFBERT_NO_ACTIVATION ? v : activation == UFBERT_GELU ? dense_gelu(v) : v_activate(activation, v);
}

/* Activation, residual, store: rows of y (`from` column on) from their sums. A function of its own, because it is large
 * and every size of tile ends with it. */
static void finish_tile(const ufbert_linear *layer, vec sums[][VECTORS_AT_ONCE], int rows, const float *residual,
                        float *y, ptrdiff_t column) {
    const ptrdiff_t n = layer->width_out;
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 2
        for (int j = 0; j < VECTORS_AT_ONCE; j++) {
            const ptrdiff_t at = column + j * LANES, left = n - at;
            vec value = dense_activate(layer->activation, sums[i][j]);
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

INLINE void linear_tile(const int rows, const ufbert_linear *layer, const float *x, const float *residual, float *y,
                        ptrdiff_t panel) {
    const ptrdiff_t k = layer->width_in;
    for (int part = 0; part < UFBERT_PANEL; part += COLUMNS_AT_ONCE) {
        const ptrdiff_t column = panel * UFBERT_PANEL + part;
        vec sums[TILE_ROWS][VECTORS_AT_ONCE];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            sums[i][0] = v_load(layer->bias + column);
            sums[i][1] = v_load(layer->bias + column + LANES);
        }
        multiply(rows, 2, x, k, layer->floats + panel * k * UFBERT_PANEL + part, UFBERT_PANEL, k, sums);
        finish_tile(layer, sums, rows, residual, y, column);
    }
}

/* sums[i][j] += the dot products of bytes: `groups` groups of four. */
INLINE void int8_tile(const int rows, const ufbert_linear *layer, const uint8_t *bytes, ptrdiff_t groups,
                      const float *steps, const float *lows, const float *residual, float *y, ptrdiff_t panel) {
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
        vec values[TILE_ROWS][VECTORS_AT_ONCE];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
#pragma GCC unroll 2
            for (int j = 0; j < VECTORS_AT_ONCE; j++) {
                const ptrdiff_t at = column + j * LANES;
                const vec whole = v_mul(v_set(lows[i]), v_load(layer->sums + at));
                const vec dots = v_fma(v_set(steps[i]), iv_float(sums[i][j]), whole);
                values[i][j] = v_fma(dots, v_load(layer->scales + at), v_load(layer->bias + at));
            }
        }
        finish_tile(layer, values, rows, residual, y, column);
    }
}

/* Inputs and weights in bfloat16, sums in float32. */
INLINE void bfloat16_tile(const int rows, const ufbert_linear *layer, const uint16_t *halves, ptrdiff_t pairs,
                          const float *residual, float *y, ptrdiff_t panel) {
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
        finish_tile(layer, sums, rows, residual, y, column);
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
    float least = x[0], most = x[0], lows[LANES], highs[LANES];
    vec smallest = v_set(least), largest = smallest;
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const vec values = v_load(x + i);
        smallest = v_if_greater(smallest, values, values, smallest);
        largest = v_if_greater(values, largest, values, largest);
    }
    v_store(lows, smallest);
    v_store(highs, largest);
    for (int lane = 0; lane < LANES; lane++) {
        least = lows[lane] < least ? lows[lane] : least;
        most = highs[lane] > most ? highs[lane] : most;
    }
    for (; i < n; i++) {
        least = x[i] < least ? x[i] : least;
        most = x[i] > most ? x[i] : most;
    }
    const float range = most - least;
    const vec by = v_set(range > 0.0f ? 255.0f / range : 0.0f), from = v_set(least);
    for (i = 0; i + LANES <= n; i += LANES)
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
