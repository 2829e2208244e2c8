/* Softmax attention of one text on itself, one head at a time, and layer norm. */
#include <math.h>

#ifndef HAS_TRANSPOSE
INLINE void v_transpose(vec rows[LANES]) {
    float lanes[LANES][LANES], column[LANES];
    for (int i = 0; i < LANES; i++)
        v_store(lanes[i], rows[i]);
    for (int j = 0; j < LANES; j++) {
        for (int i = 0; i < LANES; i++)
            column[i] = lanes[i][j];
        rows[j] = v_load(column);
    }
}
INLINE float v_highest(vec a) {
    float lanes[LANES], most = -INFINITY;
    v_store(lanes, a);
    for (int i = 0; i < LANES; i++)
        most = lanes[i] > most ? lanes[i] : most;
    return most;
}
#endif

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
            multiply(rows, 2, a, lda, b + column, ldb, k, sums);
        else
            multiply(rows, 1, a, lda, b + column, ldb, k, sums);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            v_store(out + i * ldo + column, sums[i][0]);
            if (vectors == 2)
                v_store(out + i * ldo + column + LANES, sums[i][1]);
        }
    }
}

static void multiply_some(int now, const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb, ptrdiff_t k,
                          ptrdiff_t columns, float *out, ptrdiff_t ldo) {
#define CALL(count) multiply_rows(count, a, lda, b, ldb, k, columns, out, ldo)
    LINEAR_CASES(CALL)
#undef CALL
}

/* exp(scale * scores + penalties - their maximum), in place; returns the sum. */
INLINE float exponentiate(float *scores, const float *penalties, float scale, ptrdiff_t columns) {
    vec highest = v_set(-INFINITY), sum = v_set(0.0f);
    for (ptrdiff_t i = 0; i < columns; i += LANES) {
        const vec score = v_fma(v_load(scores + i), v_set(scale), v_load(penalties + i));
        v_store(scores + i, score);
        highest = v_if_greater(score, highest, score, highest);
    }
    const vec most = v_set(v_highest(highest));
    for (ptrdiff_t i = 0; i < columns; i += LANES) {
        const vec weight = v_exp_below(v_sub(v_load(scores + i), most));
        v_store(scores + i, weight);
        sum = v_add(sum, weight);
    }
    return v_sum(sum);
}

INLINE ptrdiff_t whole_vectors(ptrdiff_t n) { return (n + LANES - 1) / LANES * LANES; }

/* Floats from one row of a packed matrix to the next: an odd number of cache lines, so that they spread over the sets. */
INLINE ptrdiff_t spread(ptrdiff_t columns) { return columns % 32 == 0 ? columns + 16 : columns; }

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

static void attention(const ufbert_attention *work, ptrdiff_t start, ptrdiff_t length, ptrdiff_t head, void *scratch) {
    const ptrdiff_t size = work->head_size, width = work->num_heads * size, row = 3 * width;
    const ptrdiff_t keys = whole_vectors(length), columns = whole_vectors(size), ldk = spread(keys);
    const float *q = work->qkv + start * row + head * size, *k = q + width, *v = k + width;
    float *turned = scratch, *values = turned + ldk * size, *penalties = values + length * columns;
    float *scores = penalties + keys, *mixed = scores + TILE_ROWS * keys;

    turn_keys(k, row, length, size, turned, ldk);
    for (ptrdiff_t i = 0; i < keys; i++)
        penalties[i] = i >= length ? -INFINITY : work->attended && !work->attended[start + i] ? -10000.0f : 0.0f;
    for (ptrdiff_t i = 0; i < length; i++)
        for (ptrdiff_t j = 0; j < columns; j += LANES)
            v_store(values + i * columns + j, size - j >= LANES ? v_load(v + i * row + j)
                                                                : v_load_part(v + i * row + j, size - j));

    for (ptrdiff_t first = 0; first < length; first += TILE_ROWS) {
        const int now = length - first < TILE_ROWS ? (int)(length - first) : TILE_ROWS;
        float sums[TILE_ROWS];
        multiply_some(now, q + first * row, row, turned, ldk, size, keys, scores, keys);
        for (int i = 0; i < now; i++)
            sums[i] = exponentiate(scores + i * keys, penalties, work->scale, keys);
        multiply_some(now, scores, keys, values, columns, length, columns, mixed, columns);
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
    const ptrdiff_t whole = width / LANES * LANES, left = width - whole;
    for (; rows > 0; rows--, x += width, y += width) {
        vec sum = v_set(0.0f), squares = v_set(0.0f), last = v_set(0.0f);
        for (ptrdiff_t i = 0; i < whole; i += LANES)
            sum = v_add(sum, v_load(x + i));
        if (left)
            sum = v_add(sum, v_load_part(x + whole, left));
        const vec mean = v_set(v_sum(sum) / (float)width);
        for (ptrdiff_t i = 0; i < whole; i += LANES) {
            const vec centred = v_sub(v_load(x + i), mean);
            squares = v_fma(centred, centred, squares);
        }
        if (left) { /* lanes beyond the row count for nothing */
            float lanes[LANES] = {0.0f};
            last = v_sub(v_load_part(x + whole, left), mean);
            v_store_part(lanes, last, left);
            squares = v_fma(v_load(lanes), v_load(lanes), squares);
        }
        const vec by = v_set(1.0f / sqrtf(v_sum(squares) / (float)width + eps));
        for (ptrdiff_t i = 0; i < whole; i += LANES) {
            const vec centred = v_mul(v_sub(v_load(x + i), mean), by);
            v_store(y + i, v_fma(centred, v_load(weight + i), v_load(bias + i)));
        }
        if (left)
            v_store_part(y + whole, v_fma(v_mul(last, by), v_load_part(weight + whole, left),
                                          v_load_part(bias + whole, left)), left);
    }
}
