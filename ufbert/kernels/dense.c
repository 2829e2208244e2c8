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

int ufbert_run_layer(const ufbert_dense *kernels, const ufbert_layer *layer, ufbert_pass *pass, int members) {
    const sizes need = member_sizes(layer, pass);
    size_t bytes = (size_t)members * (need.normed + need.scratch);
    const size_t shared = need.qkv + need.context + need.hidden;
    bytes += pass->by_columns ? shared + need.normed : (size_t)members * shared;
    char *memory = malloc(bytes + 64);
    if (!memory)
        return -1;
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
    if (members == 1)
        kernels->encoder_layer(layer, pass, 0, 1);
    else {
#ifdef _OPENMP
#pragma omp parallel num_threads(members)
        kernels->encoder_layer(layer, pass, omp_get_thread_num(), omp_get_num_threads());
#endif
    }
    free(memory);
    return 0;
}

void ufbert_pack_floats(const ufbert_linear *layer, const float *weight) {
    const ptrdiff_t k = layer->width_in, n = layer->width_out;
    float *panels = (float *)layer->floats;
    for (ptrdiff_t first = 0; first < n; first += UFBERT_PANEL)
        for (ptrdiff_t column = 0; column < UFBERT_PANEL; column++)
            for (ptrdiff_t p = 0; p < k; p++)
                panels[first * k + p * UFBERT_PANEL + column] = first + column < n ? weight[(first + column) * k + p] : 0.0f;
}

void ufbert_pack_halves(const ufbert_linear *layer, const float *weight) {
    const ptrdiff_t k = layer->width_in, n = layer->width_out, pairs = (k + 1) / 2;
    uint16_t *panels = (uint16_t *)layer->halves;
    for (ptrdiff_t column = 0; column < whole_panels(n); column++)
        for (ptrdiff_t p = 0; p < 2 * pairs; p++)
            panels[((column / UFBERT_PANEL * pairs + p / 2) * UFBERT_PANEL + column % UFBERT_PANEL) * 2 + p % 2] =
                column < n && p < k ? ufbert_bfloat16(weight[column * k + p]) : 0;
}

void ufbert_pack_bytes(const ufbert_linear *layer, const float *weight) {
    const ptrdiff_t k = layer->width_in, n = layer->width_out, groups = (k + 3) / 4;
    int8_t *panels = (int8_t *)layer->bytes;
    float *scales = (float *)layer->scales, *sums = (float *)layer->sums;
    for (ptrdiff_t column = 0; column < whole_panels(n); column++) {
        const float *row = weight + column * k;
        float most = 0.0f;
        for (ptrdiff_t p = 0; column < n && p < k; p++)
            most = fabsf(row[p]) > most ? fabsf(row[p]) : most;
        const float by = most > 0.0f ? 127.0f / most : 0.0f;
        int32_t sum = 0;
        for (ptrdiff_t p = 0; p < groups * 4; p++) {
            const int8_t byte = column < n && p < k ? (int8_t)lrintf(row[p] * by) : 0;
            panels[((column / UFBERT_PANEL * groups + p / 4) * UFBERT_PANEL + column % UFBERT_PANEL) * 4 + p % 4] = byte;
            sum += byte;
        }
        scales[column] = most / 127.0f;
        sums[column] = (float)sum;
    }
}
