/* Gradients through the visited nodes and, where asked for, through one decision of each token in each tree.
 *
 * A tree's tokens go through it in the order of their leaves, a block at a time: neighbours share most of their rows, so
 * each product or sum below reads a node's row once for several tokens, from the first cache, while the next block's
 * inputs are fetched to the second. Trees take turns, as each adds to dx. Subtrees of one tree may run at once: what
 * they have in common, the nodes above them, each sums by itself. */
#ifndef UFBERT_BACKWARD_H
#define UFBERT_BACKWARD_H

#include "../activation.h"
#include "rows.h"

enum {
    MOST_LEVELS = UFBERT_MAX_DEPTH + 1,
    BLOCK_TOKENS = 16, /* of 384 floats: 24 KB of the first cache for dy, x or dx */
};

typedef struct {
    const ufbert_backward *pass;
    ptrdiff_t root; /* of the tree, among all nodes */
    ptrdiff_t tree, count;
    const int32_t *tokens;
    const float *xs[BLOCK_TOKENS], *dys[BLOCK_TOKENS];
    int32_t nodes[MOST_LEVELS][BLOCK_TOKENS];
    float scores[MOST_LEVELS][BLOCK_TOKENS], values[MOST_LEVELS][BLOCK_TOKENS]; /* before and after the activation */
    float dots[MOST_LEVELS][BLOCK_TOKENS], grads[MOST_LEVELS][BLOCK_TOKENS];    /* gradients of values and scores */
    fetch_plan ahead;
} backward_block;

/* What the block after these tokens will read: rows of dy, x and dx, and visits. */
static void plan_tokens(backward_block *b, ptrdiff_t following) {
    const ufbert_backward *pass = b->pass;
    const ufbert_fff *fff = pass->fff;
    const ptrdiff_t levels = fff->depth + 1, in = fff->width_in, out = fff->width_out, item = sizeof(float);
    plan_nothing(&b->ahead);
    for (ptrdiff_t i = b->count; i < b->count + following && i < 2 * BLOCK_TOKENS; i++) {
        const ptrdiff_t token = b->tokens[i], visit = (token * fff->num_trees + b->tree) * levels;
        plan_fetch(&b->ahead, pass->path + visit, levels * item);
        plan_fetch(&b->ahead, pass->scores + visit, levels * item);
        plan_fetch(&b->ahead, pass->dy + token * out, out * item);
        plan_fetch(&b->ahead, pass->x + token * in, in * item);
        plan_fetch(&b->ahead, pass->dx + token * in, in * item);
    }
    /* At least so many products, sums of rows and sums of inputs are to come, the last two in panels. */
    const ptrdiff_t panel = PANEL_BLOCKS * UFBERT_BLOCK;
    const ptrdiff_t panels_in = (in + panel - 1) / panel, panels_out = (out + panel - 1) / panel;
    spread_over(&b->ahead, (b->count / TOKENS_AT_ONCE + panels_in + panels_out) * levels + b->count * panels_in);
}

static void read_visits(backward_block *b) {
    const ufbert_fff *fff = b->pass->fff;
    const ptrdiff_t levels = fff->depth + 1;
    for (ptrdiff_t i = 0; i < b->count; i++) {
        const ptrdiff_t token = b->tokens[i], visit = (token * fff->num_trees + b->tree) * levels;
        b->xs[i] = b->pass->x + token * fff->width_in;
        b->dys[i] = b->pass->dy + token * fff->width_out;
        for (ptrdiff_t level = 0; level < levels; level++) {
            b->nodes[level][i] = b->pass->path[visit + level];
            b->scores[level][i] = b->pass->scores[visit + level];
        }
    }
}

/* How many tokens from `first` on, and before `end`, stand at one node of a level. */
INLINE ptrdiff_t tokens_at_node(const backward_block *b, ptrdiff_t level, ptrdiff_t first, ptrdiff_t end) {
    const int32_t *nodes = b->nodes[level];
    ptrdiff_t end_of_run = first + 1;
    while (end_of_run < end && nodes[end_of_run] == nodes[first])
        end_of_run++;
    return end_of_run - first;
}

/* Products of dy with output rows: the gradients of the activations. A few tokens take all levels before the next few. */
static void output_products(backward_block *b) {
    const ufbert_fff *fff = b->pass->fff;
    const char *tree_rows = fff->w_out + b->root * fff->stride_out, *rows[TOKENS_AT_ONCE];
    for (ptrdiff_t first = 0, end; first < b->count; first = end) {
        end = first + TOKENS_AT_ONCE < b->count ? first + TOKENS_AT_ONCE : b->count;
        for (ptrdiff_t level = 0; level <= fff->depth; level++) {
            const ptrdiff_t run = tokens_at_node(b, level, first, end);
            fetch_ahead(&b->ahead, 1);
            for (ptrdiff_t i = first; i < end; i++)
                rows[i - first] = tree_rows + b->nodes[level][i] * fff->stride_out;
            if (run == end - first)
                dot_rows(UFBERT_F32, rows[0], b->dys + first, (int)run, fff->width_out, b->dots[level] + first);
            else
                dot_each(UFBERT_F32, rows, b->dys + first, (int)(end - first), fff->width_out, b->dots[level] + first);
        }
    }
}

static void score_gradients(backward_block *b) {
    const ufbert_fff *fff = b->pass->fff;
    for (ptrdiff_t level = 0; level <= fff->depth; level++) {
        memcpy(b->values[level], b->scores[level], (size_t)b->count * sizeof(float));
        memcpy(b->grads[level], b->dots[level], (size_t)b->count * sizeof(float));
        activate_backward(fff->activation, b->values[level], b->grads[level], b->count);
    }
}

/* Walks tokens down the paths that they did not take, from the levels tried on, side by side. What those paths would
 * add: `losses`, the products with dy; `squares`, the squared lengths as if rows were orthogonal. */
static void walk_others(const backward_block *b, const ptrdiff_t *tried, float *losses, float *squares) {
    const ufbert_fff *fff = b->pass->fff;
    const char *rows_in[BLOCK_TOKENS], *rows_out[BLOCK_TOKENS];
    const float *xs[BLOCK_TOKENS], *dys[BLOCK_TOKENS];
    float scores[BLOCK_TOKENS], dots[BLOCK_TOKENS];
    ptrdiff_t nodes[BLOCK_TOKENS], walking[BLOCK_TOKENS], count = b->count;
    for (ptrdiff_t i = 0; i < count; i++) {
        const ptrdiff_t node = b->nodes[tried[i]][i];
        nodes[i] = b->root + 2 * node + 1 + !(b->scores[tried[i]][i] > 0.0f);
        walking[i] = i;
        losses[i] = squares[i] = 0.0f;
    }
    for (ptrdiff_t step = 1; count > 0; step++) {
        for (ptrdiff_t i = 0; i < count; i++) {
            xs[i] = b->xs[walking[i]];
            dys[i] = b->dys[walking[i]];
            rows_in[i] = fff->w_in + nodes[i] * fff->stride_in;
            rows_out[i] = fff->w_out + nodes[i] * fff->stride_out;
            prefetch_bytes(rows_out[i], fff->stride_out);
        }
        dot_each(UFBERT_F32, rows_in, xs, (int)count, fff->width_in, scores);
        dot_each(UFBERT_F32, rows_out, dys, (int)count, fff->width_out, dots);
        ptrdiff_t left = 0;
        float values[BLOCK_TOKENS];
        for (ptrdiff_t i = 0; i < count; i++)
            values[i] = scores[i] += fff->b_in[nodes[i]];
        activate(fff->activation, values, count);
        for (ptrdiff_t i = 0; i < count; i++) {
            const ptrdiff_t token = walking[i];
            losses[token] += values[i] * dots[i];
            squares[token] += values[i] * values[i] * b->pass->out_squares[nodes[i]];
            if (tried[token] + step < fff->depth) {
                walking[left] = token;
                nodes[left++] = 2 * nodes[i] - b->root + 1 + (scores[i] > 0.0f);
            }
        }
        count = left;
    }
}

/* Adds the gradients of the scores that decide at the levels tried. */
static void decision_gradients(backward_block *b) {
    const ufbert_backward *pass = b->pass;
    const ufbert_fff *fff = pass->fff;
    float losses[BLOCK_TOKENS], squares[BLOCK_TOKENS], scores[BLOCK_TOKENS], gaussians[BLOCK_TOKENS];
    ptrdiff_t tried[BLOCK_TOKENS];
    for (ptrdiff_t i = 0; i < b->count; i++) {
        tried[i] = pass->tried[b->tokens[i] * fff->num_trees + b->tree];
        scores[i] = b->scores[tried[i]][i];
    }
    walk_others(b, tried, losses, squares);
    for (ptrdiff_t i = 0; i < b->count; i += LANES) {
        vec gaussian;
        v_normal_cdf(v_load_part(scores + i, b->count - i), &gaussian);
        v_store_part(gaussians + i, gaussian, b->count - i);
    }
    for (ptrdiff_t i = 0; i < b->count; i++) {
        float taken = 0.0f, square = squares[i];
        for (ptrdiff_t level = tried[i] + 1; level <= fff->depth; level++) {
            const float value = b->values[level][i];
            taken += value * b->dots[level][i];
            square += value * value * pass->out_squares[b->root + b->nodes[level][i]];
        }
        const float loss =
            losses[i] + pass->switch_costs[b->tokens[i]] * sqrtf(square) - taken; /* of going otherwise */
        b->grads[tried[i]][i] += 0.3989422804f * gaussians[i] * (float)fff->depth * (scores[i] > 0.0f ? -loss : loss);
    }
}

/* What the tree adds to dx. */
static void input_gradients(backward_block *b) {
    const ufbert_backward *pass = b->pass;
    const ufbert_fff *fff = pass->fff;
    const ptrdiff_t levels = fff->depth + 1, n = fff->width_in;
    const int start = b->tree == 0 ? START_AT_ZERO : START_AT_Y;
    const char *rows[BLOCK_TOKENS][MOST_LEVELS];
    float coefs[BLOCK_TOKENS][MOST_LEVELS];
    for (ptrdiff_t i = 0; i < b->count; i++)
        for (ptrdiff_t level = 0; level < levels; level++) {
            rows[i][level] = fff->w_in + (b->root + b->nodes[level][i]) * fff->stride_in;
            coefs[i][level] = b->grads[level][i];
        }
    for (ptrdiff_t block = 0, next = 0; block * UFBERT_BLOCK < n; block = next)
        for (ptrdiff_t i = 0; i < b->count; i++) {
            fetch_ahead(&b->ahead, 1);
            next = mix_columns(UFBERT_F32, start, THROUGH_CACHES, pass->dx + b->tokens[i] * n, rows[i], coefs[i],
                               levels, block, n, NULL);
        }
}

/* Adds to the gradients of rows: of each node that tokens meet at, the sum of coefs * inputs. Rows of levels above `top`
 * are those of `above`. */
static void row_gradients(backward_block *b, const float *const *inputs, float (*coefs)[BLOCK_TOKENS], ptrdiff_t n,
                          float *rows, ptrdiff_t top, float *above) {
    const ufbert_fff *fff = b->pass->fff;
    const ptrdiff_t stride_above = ufbert_floats_above(fff);
    for (ptrdiff_t block = 0, next = 0; block * UFBERT_BLOCK < n; block = next)
        for (ptrdiff_t level = 0; level <= fff->depth; level++)
            for (ptrdiff_t i = 0, run; i < b->count; i += run) {
                float *row = level < top ? above + level * stride_above : rows + (b->root + b->nodes[level][i]) * n;
                run = tokens_at_node(b, level, i, b->count);
                fetch_ahead(&b->ahead, 1);
                next = mix_columns(UFBERT_F32, START_AT_Y, THROUGH_CACHES, row, (const char *const *)(inputs + i),
                                   coefs[level] + i, run, block, n, NULL);
            }
}

static void bias_gradients(const backward_block *b, ptrdiff_t top, float *above) {
    const ufbert_fff *fff = b->pass->fff;
    above += fff->width_in + fff->width_out;
    for (ptrdiff_t level = 0; level <= fff->depth; level++)
        for (ptrdiff_t i = 0; i < b->count; i++)
            *(level < top ? above + level * ufbert_floats_above(fff) : b->pass->db_in + b->root + b->nodes[level][i]) +=
                b->grads[level][i];
}

static void fff_backward(const ufbert_backward *pass, ptrdiff_t tree, ptrdiff_t top, const int32_t *tokens,
                         ptrdiff_t count, float *above) {
    const ufbert_fff *fff = pass->fff;
    backward_block b;
    b.pass = pass;
    b.tree = tree;
    b.root = tree * fff->num_nodes;
    for (ptrdiff_t first = 0; first < count; first += b.count) {
        const ptrdiff_t left = count - first;
        b.tokens = tokens + first;
        b.count = left < BLOCK_TOKENS ? left : BLOCK_TOKENS;
        plan_tokens(&b, left - b.count);
        read_visits(&b);
        output_products(&b);
        score_gradients(&b);
        if (pass->tried)
            decision_gradients(&b);
        row_gradients(&b, b.dys, b.values, fff->width_out, pass->dw_out, top, above + fff->width_in);
        row_gradients(&b, b.xs, b.grads, fff->width_in, pass->dw_in, top, above);
        bias_gradients(&b, top, above);
        input_gradients(&b);
    }
}

#endif
