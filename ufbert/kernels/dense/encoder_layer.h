/* One encoder layer, from its input rows to its output rows, by one thread of a team.
 *
 * Many tokens: threads take groups of whole texts, and a group goes through the layer while it is in the cache. Few
 * tokens: threads share out the columns of each linear layer and the heads, and wait for each other after each. Trees
 * take equal shares of all tokens once attention is done: the more tokens, the more of them share a node. Either way a
 * row's sums are those of `linear`, `attention`, `layer_norm` and `fff_forward`, bit for bit.
 *
 * There are as many shares as threads were asked for; each is done by whichever thread comes to it first. */
#ifndef UFBERT_ENCODER_LAYER_H
#define UFBERT_ENCODER_LAYER_H

#include "attention.h"
#include "dense.h"
#include "gate.h"
#include "linear.h"
#include "norm.h"

INLINE ptrdiff_t panels_of(const ufbert_linear *linear) { return (linear->width_out + PANEL - 1) / PANEL; }

/* All columns of a linear layer. */
INLINE void whole_linear(const ufbert_linear *layer, const float *x, ptrdiff_t rows, const float *residual, float *y,
                         void *scratch) {
    linear(layer, x, rows, residual, y, 0, panels_of(layer), scratch);
}

/* Shares of the columns of a linear layer, until all are taken. */
INLINE void shared_linear(const ufbert_linear *layer, const float *x, ptrdiff_t rows, const float *residual, float *y,
                          ufbert_step *step, ptrdiff_t shares, void *scratch) {
    const ptrdiff_t panels = panels_of(layer);
    for (ptrdiff_t share = ufbert_take(step); share < shares; share = ufbert_take(step)) {
        linear(layer, x, rows, residual, y, panels * share / shares, panels * (share + 1) / shares, scratch);
        ufbert_finish(step, shares);
    }
}

/* A share of all rows, in blocks of eight, which the trees take together. */
INLINE void share_of_rows(const ufbert_layer_pass *pass, ptrdiff_t share, ptrdiff_t shares, ptrdiff_t *first,
                          ptrdiff_t *end) {
    const ptrdiff_t rows = pass->cu_seqlens[pass->num_texts], most = ufbert_round_up((rows + shares - 1) / shares, 8);
    *first = most * share < rows ? most * share : rows;
    *end = rows - *first < most ? rows : *first + most;
}

/* What attention reads of `rows` rows: x, through the norm before it if there is one. */
INLINE const float *attention_input(const ufbert_encoder_layer *layer, const float *x, ptrdiff_t rows,
                                    const ufbert_layer_buffers *buffers) {
    if (!layer->pre || !layer->norm1.weight)
        return x;
    layer_norm(&layer->norm1, x, rows, layer->width, buffers->normed);
    return buffers->normed;
}

/* Texts first to last - 1: attention and its residual sum, with the norm that belongs to it. */
static void attend_texts(const ufbert_encoder_layer *layer, const ufbert_layer_pass *pass, ptrdiff_t first,
                         ptrdiff_t last, const ufbert_layer_buffers *buffers) {
    const ptrdiff_t width = layer->width, token = pass->cu_seqlens[first], rows = pass->cu_seqlens[last] - token;
    const float *x = pass->x + token * width;
    float *y = pass->y + token * width;
    whole_linear(layer->query_key_value, attention_input(layer, x, rows, buffers), rows, NULL, buffers->qkv,
                 buffers->scratch);
    const ufbert_attention heads = {layer->num_heads,
                                    width / layer->num_heads,
                                    layer->scale,
                                    buffers->qkv,
                                    pass->attended ? pass->attended + token : NULL,
                                    buffers->context,
                                    layer->distance_bias,
                                    layer->rotations,
                                    layer->window};
    for (ptrdiff_t text = first; text < last; text++) {
        const ptrdiff_t start = pass->cu_seqlens[text], length = pass->cu_seqlens[text + 1] - start;
        for (ptrdiff_t head = 0; head < layer->num_heads && length > 0; head++)
            attention(&heads, start - token, length, head, buffers->scratch);
    }
    whole_linear(layer->output, buffers->context, rows, x, y, buffers->scratch);
    if (!layer->pre)
        layer_norm(&layer->norm1, y, rows, width, y);
}

/* Where dense_out reads what dense_in has given for `rows` rows: gated, behind that. */
INLINE float *gated_rows(const ufbert_encoder_layer *layer, ptrdiff_t rows, const ufbert_layer_buffers *buffers) {
    return buffers->hidden + (layer->gated ? rows * layer->dense_in->width_out : 0);
}

/* Rows first to end - 1 of what dense_in has given, through the gates. */
static void gate_rows(const ufbert_encoder_layer *layer, ptrdiff_t rows, ptrdiff_t first, ptrdiff_t end,
                      const ufbert_layer_buffers *buffers) {
    const ptrdiff_t width = layer->dense_out->width_in;
    gate(layer->gate_activation, buffers->hidden + first * 2 * width, end - first, width,
         gated_rows(layer, rows, buffers) + first * width);
}

/* Rows of y in place: the dense feed-forward layer and its residual sum, with the norm that belongs to it. */
static void feed_forward_rows(const ufbert_encoder_layer *layer, float *y, ptrdiff_t rows,
                              const ufbert_layer_buffers *buffers) {
    const ptrdiff_t width = layer->width;
    for (ptrdiff_t done = 0, now; done < rows; done += now) {
        now = rows_at_once(rows - done, UFBERT_ROWS_IN_CHUNK);
        float *y_now = y + done * width;
        if (layer->pre)
            layer_norm(&layer->norm2, y_now, now, width, buffers->normed);
        whole_linear(layer->dense_in, layer->pre ? buffers->normed : y_now, now, NULL, buffers->hidden,
                     buffers->scratch);
        if (layer->gated)
            gate_rows(layer, now, 0, now, buffers);
        whole_linear(layer->dense_out, gated_rows(layer, now, buffers), now, y_now, y_now, buffers->scratch);
        if (!layer->pre)
            layer_norm(&layer->norm2, y_now, now, width, y_now);
    }
}

static void layer_by_groups(const ufbert_encoder_layer *layer, ufbert_layer_pass *pass,
                            const ufbert_layer_buffers *buffers) {
    ufbert_step *step = &pass->steps[UFBERT_GROUPS];
    for (ptrdiff_t group = ufbert_take(step); group < pass->num_groups; group = ufbert_take(step)) {
        const ptrdiff_t first = pass->groups[group], last = pass->groups[group + 1], token = pass->cu_seqlens[first];
        attend_texts(layer, pass, first, last, buffers);
        if (!layer->trees)
            feed_forward_rows(layer, pass->y + token * layer->width, pass->cu_seqlens[last] - token, buffers);
        ufbert_finish(step, pass->num_groups);
    }
    ufbert_await(step, pass->num_groups);
}

/* pass->sums: attention and its residual sum, before a norm. */
static void attention_by_columns(const ufbert_encoder_layer *layer, ufbert_layer_pass *pass, ptrdiff_t shares,
                                 const ufbert_layer_buffers *buffers) {
    const ptrdiff_t width = layer->width, num_heads = layer->num_heads, rows = pass->cu_seqlens[pass->num_texts];
    ufbert_step *step = &pass->steps[UFBERT_QUERIES_KEYS_VALUES];
    const float *x = ufbert_some_left(step, shares) ? attention_input(layer, pass->x, rows, buffers) : NULL;
    shared_linear(layer->query_key_value, x, rows, NULL, buffers->qkv, step, shares, buffers->scratch);
    ufbert_await(step, shares);
    const ufbert_attention heads = {num_heads,      width / num_heads, layer->scale,         buffers->qkv,
                                    pass->attended, buffers->context,  layer->distance_bias, layer->rotations,
                                    layer->window};
    step = &pass->steps[UFBERT_HEADS];
    for (ptrdiff_t share = ufbert_take(step); share < shares; share = ufbert_take(step)) {
        const ptrdiff_t first = num_heads * share / shares, end = num_heads * (share + 1) / shares;
        for (ptrdiff_t text = 0; text < pass->num_texts; text++) {
            const ptrdiff_t start = pass->cu_seqlens[text], length = pass->cu_seqlens[text + 1] - start;
            for (ptrdiff_t head = first; head < end && length > 0; head++)
                attention(&heads, start, length, head, buffers->scratch);
        }
        ufbert_finish(step, shares);
    }
    ufbert_await(step, shares);
    step = &pass->steps[UFBERT_CONTEXT];
    shared_linear(layer->output, buffers->context, rows, pass->x, pass->sums, step, shares, buffers->scratch);
    ufbert_await(step, shares);
}

/* y from pass->sums. */
static void feed_forward_by_columns(const ufbert_encoder_layer *layer, ufbert_layer_pass *pass, ptrdiff_t shares,
                                    const ufbert_layer_buffers *buffers) {
    const ptrdiff_t width = layer->width, rows = pass->cu_seqlens[pass->num_texts];
    ptrdiff_t first, end;
    ufbert_step *step = &pass->steps[UFBERT_DENSE_IN];
    /* Every thread that comes in time normalises all rows for itself: that is less than another step. */
    if (ufbert_some_left(&pass->steps[UFBERT_DENSE_OUT], shares))
        layer_norm(layer->pre ? &layer->norm2 : &layer->norm1, pass->sums, rows, width, buffers->normed);
    shared_linear(layer->dense_in, buffers->normed, rows, NULL, buffers->hidden, step, shares, buffers->scratch);
    ufbert_await(step, shares);
    step = &pass->steps[UFBERT_GATES];
    for (ptrdiff_t share = ufbert_take(step); layer->gated && share < shares; share = ufbert_take(step)) {
        share_of_rows(pass, share, shares, &first, &end);
        gate_rows(layer, rows, first, end, buffers);
        ufbert_finish(step, shares);
    }
    if (layer->gated)
        ufbert_await(step, shares);
    step = &pass->steps[UFBERT_DENSE_OUT];
    shared_linear(layer->dense_out, gated_rows(layer, rows, buffers), rows, layer->pre ? pass->sums : buffers->normed,
                  pass->y, step, shares, buffers->scratch);
    if (layer->pre)
        return;
    ufbert_await(step, shares);
    step = &pass->steps[UFBERT_LAST_NORM];
    for (ptrdiff_t share = ufbert_take(step); share < shares; share = ufbert_take(step)) {
        share_of_rows(pass, share, shares, &first, &end);
        layer_norm(&layer->norm2, pass->y + first * width, end - first, width, pass->y + first * width);
    }
}

/* y += sums + bias */
static void add_sums(const float *sums, const float *bias, ptrdiff_t rows, ptrdiff_t width, float *y) {
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t i = 0; i < width; i += LANES) {
            const ptrdiff_t at = row * width + i, left = width - i;
            vec sum = v_load_part(sums + at, left);
            if (bias)
                sum = v_add(sum, v_load_part(bias + i, left));
            v_store_part(y + at, v_add(sum, v_load_part(y + at, left)), left);
        }
}

/* A share of the rows of y, in place: the trees and their residual sum, with the norm that belongs to it. */
static void visit_trees(const ufbert_encoder_layer *layer, const ufbert_layer_pass *pass, ptrdiff_t first,
                        ptrdiff_t end, const ufbert_layer_buffers *buffers) {
    const ptrdiff_t width = layer->width;
    for (ptrdiff_t now; first < end; first += now) {
        float *y = pass->y + first * width;
        now = end - first < pass->tree_rows ? end - first : pass->tree_rows;
        if (layer->pre)
            layer_norm(&layer->norm2, y, now, width, buffers->normed);
        pass->fff->forward(layer->trees, layer->pre ? buffers->normed : y, now, buffers->tree_sums, NULL, NULL, 0,
                           buffers->scratch);
        add_sums(buffers->tree_sums, layer->tree_bias, now, width, y);
        if (!layer->pre)
            layer_norm(&layer->norm2, y, now, width, y);
    }
}

/* y from itself or, by columns, from pass->sums. */
static void trees_by_rows(const ufbert_encoder_layer *layer, ufbert_layer_pass *pass, ptrdiff_t shares,
                          const ufbert_layer_buffers *buffers) {
    const ptrdiff_t width = layer->width;
    ufbert_step *step = &pass->steps[UFBERT_TREES];
    for (ptrdiff_t share = ufbert_take(step), first, end; share < shares; share = ufbert_take(step)) {
        share_of_rows(pass, share, shares, &first, &end);
        float *y = pass->y + first * width;
        if (pass->by_columns && layer->pre)
            memcpy(y, pass->sums + first * width, (size_t)((end - first) * width) * sizeof(float));
        else if (pass->by_columns)
            layer_norm(&layer->norm1, pass->sums + first * width, end - first, width, y);
        visit_trees(layer, pass, first, end, buffers);
    }
}

static void encoder_layer(const ufbert_encoder_layer *layer, ufbert_layer_pass *pass,
                          const ufbert_layer_buffers *buffers, ptrdiff_t shares) {
    if (pass->by_columns)
        attention_by_columns(layer, pass, shares, buffers);
    else
        layer_by_groups(layer, pass, buffers);
    if (layer->trees)
        trees_by_rows(layer, pass, shares, buffers);
    else if (pass->by_columns)
        feed_forward_by_columns(layer, pass, shares, buffers);
}

#endif
