/* Softmax attention of one text on itself, one head at a time, and layer norm. */
#include <math.h>

INLINE ptrdiff_t whole_panels(ptrdiff_t n) { return (n + UFBERT_PANEL - 1) / UFBERT_PANEL * UFBERT_PANEL; }

/* out[:rows] = a (rows, k) times panels of b, `columns` of them; out's rows are `ldo` floats apart. */
INLINE void multiply_panels(const int rows, const float *a, ptrdiff_t lda, const float *panels, ptrdiff_t k,
                            ptrdiff_t columns, float *out, ptrdiff_t ldo) {
    for (ptrdiff_t column = 0; column < columns; column += COLUMNS_AT_ONCE) {
        const float *b = panels + column / UFBERT_PANEL * UFBERT_PANEL * k + column % UFBERT_PANEL;
        vec sums[TILE_ROWS][VECTORS_AT_ONCE];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
            sums[i][0] = sums[i][1] = v_set(0.0f);
        multiply(rows, a, lda, b, UFBERT_PANEL, k, sums);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
            for (int j = 0; j < VECTORS_AT_ONCE; j++)
                v_store(out + i * ldo + column + j * LANES, sums[i][j]);
    }
}

static void attend_panels(int now, const float *a, ptrdiff_t lda, const float *panels, ptrdiff_t k, ptrdiff_t columns,
                          float *out, ptrdiff_t ldo) {
#define CALL(count) multiply_panels(count, a, lda, panels, k, columns, out, ldo)
    LINEAR_CASES(CALL)
#undef CALL
}

/* exp(scale * scores + penalties - their maximum), in place; returns the sum. */
static float exponentiate(float *scores, const float *penalties, float scale, ptrdiff_t columns) {
    vec highest = v_set(-INFINITY), sum = v_set(0.0f);
    for (ptrdiff_t i = 0; i < columns; i += LANES) {
        const vec score = v_fma(v_load(scores + i), v_set(scale), v_load(penalties + i));
        v_store(scores + i, score);
        highest = v_if_greater(score, highest, score, highest);
    }
    float lanes[LANES], most = -INFINITY;
    v_store(lanes, highest);
    for (int i = 0; i < LANES; i++)
        most = lanes[i] > most ? lanes[i] : most;
    for (ptrdiff_t i = 0; i < columns; i += LANES) {
        const vec weight = v_exp(v_sub(v_load(scores + i), v_set(most)));
        v_store(scores + i, weight);
        sum = v_add(sum, weight);
    }
    return v_sum(sum);
}

static void attention(const ufbert_attention *work, ptrdiff_t start, ptrdiff_t length, ptrdiff_t head, void *scratch) {
    const ptrdiff_t size = work->head_size, width = work->num_heads * size, row = 3 * width;
    const ptrdiff_t keys = whole_panels(length), columns = whole_panels(size);
    const float *q = work->qkv + start * row + head * size, *k = q + width, *v = k + width;
    float *key_panels = scratch, *value_panels = key_panels + keys * size, *penalties = value_panels + length * columns;
    float *scores = penalties + keys, *mixed = scores + TILE_ROWS * keys;

    for (ptrdiff_t i = 0; i < keys; i++) {
        float *to = key_panels + i / UFBERT_PANEL * UFBERT_PANEL * size + i % UFBERT_PANEL;
        for (ptrdiff_t d = 0; d < size; d++)
            to[d * UFBERT_PANEL] = i < length ? k[i * row + d] : 0.0f;
        penalties[i] = i >= length ? -INFINITY : work->attended && !work->attended[start + i] ? -10000.0f : 0.0f;
    }
    for (ptrdiff_t column = 0; column < columns; column += UFBERT_PANEL)
        for (ptrdiff_t i = 0; i < length; i++) {
            float *to = value_panels + (column * length + i * UFBERT_PANEL);
            for (ptrdiff_t j = 0; j < UFBERT_PANEL; j += LANES)
                v_store(to + j, v_load_part(v + i * row + column + j, size - column - j));
        }

    for (ptrdiff_t first = 0; first < length; first += TILE_ROWS) {
        const int now = length - first < TILE_ROWS ? (int)(length - first) : TILE_ROWS;
        float sums[TILE_ROWS];
        attend_panels(now, q + first * row, row, key_panels, size, keys, scores, keys);
        for (int i = 0; i < now; i++)
            sums[i] = exponentiate(scores + i * keys, penalties, work->scale, keys);
        attend_panels(now, scores, keys, value_panels, length, columns, mixed, columns);
        for (int i = 0; i < now; i++) {
            float *to = work->context + (start + first + i) * width + head * size;
            const vec by = v_set(1.0f / sums[i]);
            for (ptrdiff_t j = 0; j < size; j += LANES)
                v_store_part(to + j, v_mul(v_load(mixed + i * columns + j), by), size - j);
        }
    }
}

static void layer_norm(const float *x, ptrdiff_t rows, ptrdiff_t width, const float *weight, const float *bias,
                       float eps, float *y) {
    for (; rows > 0; rows--, x += width, y += width) {
        vec sum = v_set(0.0f), squares = v_set(0.0f);
        for (ptrdiff_t i = 0; i < width; i += LANES)
            sum = v_add(sum, v_load_part(x + i, width - i));
        const float mean = v_sum(sum) / (float)width;
        for (ptrdiff_t i = 0; i < width; i += LANES) {
            const ptrdiff_t left = width - i;
            vec centred = v_sub(v_load_part(x + i, left), v_set(mean));
            if (left < LANES) { /* lanes beyond the row count for nothing */
                float lanes[LANES] = {0.0f};
                v_store_part(lanes, centred, left);
                centred = v_load(lanes);
            }
            squares = v_fma(centred, centred, squares);
        }
        const vec by = v_set(1.0f / sqrtf(v_sum(squares) / (float)width + eps));
        for (ptrdiff_t i = 0; i < width; i += LANES) {
            const ptrdiff_t left = width - i;
            const vec centred = v_mul(v_sub(v_load_part(x + i, left), v_set(mean)), by);
            v_store_part(y + i, v_fma(centred, v_load_part(weight + i, left), v_load_part(bias + i, left)), left);
        }
    }
}
