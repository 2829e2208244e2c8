/* Packing and scratch of the dense kernels: the same for every instruction set. */
#include "dense.h"
#include "kernels.h"

#include <math.h>
#include <string.h>

static ptrdiff_t whole_panels(ptrdiff_t n) { return (n + UFBERT_PANEL - 1) / UFBERT_PANEL * UFBERT_PANEL; }

size_t ufbert_linear_scratch(const ufbert_linear *layer) {
    const size_t bytes = layer->bytes ? (size_t)(layer->width_in + 3) / 4 * 4 : 0;
    const size_t halves = layer->halves ? (size_t)(layer->width_in + 1) / 2 * 2 : 0;
    return UFBERT_ROWS_IN_CHUNK * (2 * sizeof(float) + bytes + halves * sizeof(uint16_t));
}

size_t ufbert_attention_scratch(ptrdiff_t length, ptrdiff_t head_size) {
    const ptrdiff_t keys = whole_panels(length), columns = whole_panels(head_size), rows = 8;
    return (size_t)(keys * head_size + length * columns + keys + rows * keys + rows * columns) * sizeof(float);
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
