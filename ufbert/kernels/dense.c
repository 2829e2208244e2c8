/* Packing and scratch of the dense kernels: the same for every instruction set. */
#include "dense.h"
#include "kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

static ptrdiff_t whole_panels(ptrdiff_t n) { return (n + UFBERT_PANEL - 1) / UFBERT_PANEL * UFBERT_PANEL; }

size_t ufbert_linear_scratch(const ufbert_linear *layer) {
    const size_t bytes = layer->bytes ? (size_t)(layer->width_in + 3) / 4 * 4 : 0;
    const size_t halves = layer->halves ? (size_t)(layer->width_in + 1) / 2 * 2 : 0;
    return UFBERT_ROWS_IN_CHUNK * (2 * sizeof(float) + bytes + halves * sizeof(uint16_t));
}

size_t ufbert_attention_scratch(ptrdiff_t length, ptrdiff_t head_size) {
    const ptrdiff_t keys = whole_panels(length), columns = whole_panels(head_size), rows = 8;
    return (size_t)((keys + 16) * head_size + length * columns + keys + rows * keys + rows * columns) * sizeof(float);
}

/* Pieces of scratch begin at cache lines. */
static size_t lines(size_t bytes) { return (bytes + 63) / 64 * 64; }

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

typedef struct {
    size_t normed, qkv, context, hidden, scratch;
} sizes;

/* What a member needs of each kind: all of it by itself, or, by columns, a part. */
static sizes member_sizes(const ufbert_layer *layer, const ufbert_pass *pass) {
    const size_t h = (size_t)layer->width * sizeof(float), head = (size_t)(layer->width / layer->num_heads);
    const size_t rows = (size_t)(pass->by_columns ? pass->cu_seqlens[pass->num_texts] : pass->largest);
    const size_t in_chunk = pass->by_columns || rows < UFBERT_ROWS_IN_CHUNK ? rows : UFBERT_ROWS_IN_CHUNK;
    sizes need = {lines(rows * h), lines(rows * 3 * h), lines(rows * h), 0, 0};
    need.scratch = larger(ufbert_linear_scratch(layer->query_key_value), ufbert_linear_scratch(layer->output));
    need.scratch = larger(need.scratch, ufbert_attention_scratch(pass->longest, (ptrdiff_t)head));
    if (layer->dense_in) {
        need.hidden = lines(in_chunk * (size_t)layer->dense_in->width_out * sizeof(float));
        need.scratch = larger(need.scratch, ufbert_linear_scratch(layer->dense_in));
        need.scratch = larger(need.scratch, ufbert_linear_scratch(layer->dense_out));
    }
    need.scratch = lines(need.scratch);
    return need;
}

ufbert_member ufbert_member_of(const ufbert_layer *layer, const ufbert_pass *pass, int member) {
    const sizes need = member_sizes(layer, pass);
    if (pass->by_columns) {
        char *own = pass->scratch + (size_t)member * (need.normed + need.scratch);
        return (ufbert_member){(float *)own, pass->qkv, pass->context, pass->hidden, own + need.normed};
    }
    char *own = pass->scratch + (size_t)member * (need.normed + need.qkv + need.context + need.hidden + need.scratch);
    char *qkv = own + need.normed, *context = qkv + need.qkv, *hidden = context + need.context;
    return (ufbert_member){(float *)own, (float *)qkv, (float *)context, (float *)hidden, hidden + need.hidden};
}

void *ufbert_begin_layer(const ufbert_layer *layer, ufbert_pass *pass, int members) {
    const sizes need = member_sizes(layer, pass);
    size_t bytes = (size_t)members * (need.normed + need.scratch);
    const size_t shared = need.qkv + need.context + need.hidden;
    bytes += pass->by_columns ? shared + need.normed : (size_t)members * shared;
    char *memory = malloc(bytes + 64);
    if (!memory)
        return NULL;
    char *start = memory + (64 - (uintptr_t)memory % 64) % 64;
    if (pass->by_columns) {
        pass->qkv = (float *)start;
        pass->context = (float *)(start + need.qkv);
        pass->hidden = (float *)(start + need.qkv + need.context);
        pass->sums = (float *)(start + shared);
        start += shared + need.normed;
    }
    pass->scratch = start;
    pass->next = 0;
    return memory;
}

int ufbert_run_layer(const ufbert_dense *kernels, const ufbert_layer *layer, ufbert_pass *pass, int members) {
    void *memory = ufbert_begin_layer(layer, pass, members);
    if (!memory)
        return -1;
#if defined(_OPENMP) && defined(__GNUC__) /* for its atomic counter */
    if (members > 1) {
#pragma omp parallel num_threads(members)
        kernels->encoder_layer(layer, pass, omp_get_thread_num(), omp_get_num_threads());
    } else
#endif
        kernels->encoder_layer(layer, pass, 0, 1);
    free(memory);
    return 0;
}

#ifdef _OPENMP
#define FOR_THREADS _Pragma("omp parallel for num_threads(threads) schedule(static)")
#else
#define FOR_THREADS
#endif

void ufbert_pack_floats(const ufbert_linear *layer, const float *weight, int threads) {
    const ptrdiff_t k = layer->width_in, n = layer->width_out;
    float *panels = (float *)layer->floats;
    (void)threads;
    FOR_THREADS
    for (ptrdiff_t first = 0; first < n; first += UFBERT_PANEL) {
        float *panel = panels + first * k;
        const ptrdiff_t columns = n - first < UFBERT_PANEL ? n - first : UFBERT_PANEL;
        for (ptrdiff_t block = 0; block < k; block += 16) /* of a cache line of each row */
            for (ptrdiff_t column = 0; column < columns; column++)
                for (ptrdiff_t p = block; p < k && p < block + 16; p++)
                    panel[p * UFBERT_PANEL + column] = weight[(first + column) * k + p];
    }
}

void ufbert_pack_halves(const ufbert_linear *layer, const float *weight, int threads) {
    const ptrdiff_t k = layer->width_in, n = layer->width_out, pairs = (k + 1) / 2;
    uint16_t *panels = (uint16_t *)layer->halves;
    (void)threads;
    FOR_THREADS
    for (ptrdiff_t column = 0; column < n; column++) {
        uint16_t *to = panels + (column / UFBERT_PANEL * pairs * UFBERT_PANEL + column % UFBERT_PANEL) * 2;
        for (ptrdiff_t p = 0; p < k; p++)
            to[p / 2 * UFBERT_PANEL * 2 + p % 2] = ufbert_bfloat16(weight[column * k + p]);
    }
}

/* To the nearest whole number, ties to even, for values up to 2^22: the sum has no bits left for a fraction. */
static int nearest(float value) { return (int)((value + 12582912.0f) - 12582912.0f); }

void ufbert_pack_bytes(const ufbert_linear *layer, const float *weight, int threads) {
    const ptrdiff_t k = layer->width_in, n = layer->width_out, groups = (k + 3) / 4;
    int8_t *panels = (int8_t *)layer->bytes;
    float *scales = (float *)layer->scales, *sums = (float *)layer->sums;
    (void)threads;
    FOR_THREADS
    for (ptrdiff_t column = 0; column < n; column++) {
        const float *row = weight + column * k;
        int8_t *to = panels + (column / UFBERT_PANEL * groups * UFBERT_PANEL + column % UFBERT_PANEL) * 4;
        float most = 0.0f;
        for (ptrdiff_t p = 0; p < k; p++)
            most = fabsf(row[p]) > most ? fabsf(row[p]) : most;
        const float by = most > 0.0f ? 127.0f / most : 0.0f;
        int32_t sum = 0;
        for (ptrdiff_t p = 0; p < k; p++) {
            const int byte = nearest(row[p] * by);
            to[p / 4 * UFBERT_PANEL * 4 + p % 4] = (int8_t)byte;
            sum += byte;
        }
        scales[column] = most / 127.0f;
        sums[column] = (float)sum;
    }
}
