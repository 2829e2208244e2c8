/* Softmax attention of one text on itself, one head at a time. */
#ifndef UFBERT_ATTENTION_H
#define UFBERT_ATTENTION_H

#include "../activation.h"
#include "dense.h"
#include "tile.h"

/* out[:rows] = a (rows, k) times b (k, columns); rows of out are `ldo` floats apart. */
INLINE void multiply_rows(const int rows, const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb, ptrdiff_t k,
                          ptrdiff_t columns, float *out, ptrdiff_t ldo) {
    for (ptrdiff_t column = 0; column < columns; column += COLUMNS_AT_ONCE) {
        const int vectors = columns - column > LANES ? 2 : 1;
        vec sums[TILE_ROWS][VECTORS_AT_ONCE];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
            sums[i][0] = sums[i][1] = v_set(0.0f);
        if (vectors == 2)
            multiply(rows, 2, a, lda, b + column, ldb, k, NULL, sums);
        else
            multiply(rows, 1, a, lda, b + column, ldb, k, NULL, sums);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            v_store(out + i * ldo + column, sums[i][0]);
            if (vectors == 2)
                v_store(out + i * ldo + column + LANES, sums[i][1]);
        }
    }
}

static void multiply_some(int now, const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb, ptrdiff_t k,
                          ptrdiff_t columns, float *out, ptrdiff_t ldo){
#define CALL(count) multiply_rows(count, a, lda, b, ldb, k, columns, out, ldo)
    SWITCH_ROWS(now, CALL)
#undef CALL
}

/* exp(scale * scores + penalties + bias - their maximum), in place; returns the sum. bias may be NULL. */
INLINE float exponentiate(float *scores, const float *penalties, const float *bias, float scale, ptrdiff_t columns) {
    vec highest = v_set(-INFINITY), sum = v_set(0.0f);
    for (ptrdiff_t i = 0; i < columns; i += LANES) {
        vec score = v_fma(v_load(scores + i), v_set(scale), v_load(penalties + i));
        if (bias)
            score = v_add(score, v_load(bias + i));
        v_store(scores + i, score);
        highest = v_max(score, highest);
    }
    const vec maximum = v_set(v_highest(highest));
    for (ptrdiff_t i = 0; i < columns; i += LANES) {
        const vec weight = v_exp_below(v_sub(v_load(scores + i), maximum));
        v_store(scores + i, weight);
        sum = v_add(sum, weight);
    }
    return v_sum(sum);
}

INLINE ptrdiff_t whole_vectors(ptrdiff_t n) { return ufbert_round_up(n, LANES); }

/* Floats from one row of a packed matrix to the next: an odd number of cache lines, so that they spread over the sets. */
INLINE ptrdiff_t padded_stride(ptrdiff_t columns) { return columns % 32 == 0 ? columns + 16 : columns; }

/* Keys (length, size), `row` floats apart, as columns (size, keys); the last ones are zeros. */
static void turn_keys(const float *k, ptrdiff_t row, ptrdiff_t length, ptrdiff_t size, float *turned, ptrdiff_t ld) {
    vec block[LANES];
    for (ptrdiff_t first = 0; first < length; first += LANES)
        for (ptrdiff_t d = 0; d < size; d += LANES) {
            for (int i = 0; i < LANES; i++)
                block[i] = first + i >= length ? v_set(0.0f)
                           : size - d >= LANES ? v_load(k + (first + i) * row + d)
                                               : v_load_part(k + (first + i) * row + d, size - d);
            v_transpose(block);
            for (int j = 0; j < LANES && d + j < size; j++)
                v_store(turned + (d + j) * ld + first, block[j]);
        }
}

/* Turns queries or keys (length, size), `row` floats apart, by their positions, in place. arXiv 2104.09864 */
static void rotate(float *x, ptrdiff_t row, ptrdiff_t length, ptrdiff_t size, const float *rotations) {
    const ptrdiff_t half = size / 2;
    for (ptrdiff_t position = 0; position < length; position++)
        for (ptrdiff_t j = 0; j < half; j += LANES) {
            float *first = x + position * row + j, *second = first + half;
            const float *cosines = rotations + position * size + j, *sines = cosines + half;
            const vec a = v_load_part(first, half - j), b = v_load_part(second, half - j);
            const vec cosine = v_load_part(cosines, half - j), sine = v_load_part(sines, half - j);
            v_store_part(first, v_sub(v_mul(a, cosine), v_mul(b, sine)), half - j);
            v_store_part(second, v_add(v_mul(b, cosine), v_mul(a, sine)), half - j);
        }
}

/* Penalties of the keys low to low + count - 1 for one query: those of its text, and no key beyond the window. */
static void penalties_near(const float *penalties, ptrdiff_t query, ptrdiff_t window, ptrdiff_t low, ptrdiff_t count,
                           float *near) {
    for (ptrdiff_t i = 0; i < count; i++) {
        const ptrdiff_t distance = low + i - query;
        near[i] = distance <= -window || distance >= window ? -INFINITY : penalties[low + i];
    }
}

static void attention(const ufbert_attention *attention, ptrdiff_t start, ptrdiff_t length, ptrdiff_t head,
                      void *scratch) {
    const ptrdiff_t size = attention->head_size, width = attention->num_heads * size, row = 3 * width;
    const ptrdiff_t keys = whole_vectors(length), columns = whole_vectors(size), ldk = padded_stride(keys);
    float *q = attention->qkv + start * row + head * size, *k = q + width;
    const float *v = k + width;
    float *turned = scratch, *values = turned + ldk * size, *penalties = values + length * columns;
    float *near = penalties + keys, *scores = near + keys, *mixed = scores + TILE_ROWS * keys;
    const ptrdiff_t window = attention->window;
    const ufbert_distance_bias *bias = &attention->bias;
    const float *biases = bias->values ? bias->values + head * bias->stride + bias->reach : NULL; /* of query 0 */

    if (attention->rotations) {
        rotate(q, row, length, size, attention->rotations);
        rotate(k, row, length, size, attention->rotations);
    }
    turn_keys(k, row, length, size, turned, ldk);
    for (ptrdiff_t i = 0; i < keys; i++)
        penalties[i] = i >= length                                              ? -INFINITY
                       : attention->attended && !attention->attended[start + i] ? -10000.0f
                                                                                : 0.0f;
    for (ptrdiff_t i = 0; i < length; i++)
        for (ptrdiff_t j = 0; j < columns; j += LANES)
            v_store(values + i * columns + j,
                    size - j >= LANES ? v_load(v + i * row + j) : v_load_part(v + i * row + j, size - j));

    for (ptrdiff_t first = 0, now; first < length; first += now) {
        now = tile_height(length - first);
        /* The keys that these queries see, in whole vectors: low to end - 1. */
        const ptrdiff_t low = window && first >= window ? (first - window + 1) / LANES * LANES : 0;
        const ptrdiff_t end = window && length - first - now >= window ? first + now + window - 1 : length;
        const ptrdiff_t seen = whole_vectors(end - low);
        const float *allowed = window ? near : penalties;
        float sums[TILE_ROWS];
        multiply_some((int)now, q + first * row, row, turned + low, ldk, size, seen, scores, seen);
        for (int i = 0; i < now; i++) {
            if (window)
                penalties_near(penalties, first + i, window, low, seen, near);
            sums[i] = biases
                          ? exponentiate(scores + i * seen, allowed, biases + low - first - i, attention->scale, seen)
                          : exponentiate(scores + i * seen, allowed, NULL, attention->scale, seen);
        }
        multiply_some((int)now, scores, seen, values + low * columns, columns, end - low, columns, mixed, columns);
        for (int i = 0; i < now; i++) {
            float *context = attention->context + (start + first + i) * width + head * size;
            const vec factor = v_set(1.0f / sums[i]);
            for (ptrdiff_t j = 0; j < size; j += LANES)
                v_store_part(context + j, v_mul(v_load(mixed + i * columns + j), factor), size - j);
        }
    }
}

#endif
