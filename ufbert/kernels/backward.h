/* Gradients through the visited nodes and, where asked for, through one decision of each token in each tree.
 *
 * A tree's tokens go through it in the order of their leaves, a block at a time, so that neighbours share rows and a
 * block's x and dy stay in the second cache: the gradient that reaches each visited node, dx, and what the block adds to
 * its nodes' rows. Trees take turns, as each adds to dx. Rows of the top levels, where all tokens meet, are summed node
 * by node afterwards, in the order of the tokens. A row's sums are all made by one thread, in one order. */

#include <math.h>

enum {
    MOST_LEVELS = 32,
    BACKWARD_TOKENS = 64, /* of a block */
    TOKENS_AHEAD = 2,     /* whose rows are fetched */
    VISITS_AHEAD = 8,     /* whose nodes and scores are: each tree reads them a line here, a line there */
};

INLINE void prefetch_token(const float *rows, ptrdiff_t token, ptrdiff_t width) {
    prefetch_bytes((const char *)(rows + token * width), width * (ptrdiff_t)sizeof(float));
}

/* Rows that a token visits in one tree, in one matrix. */
INLINE void visited_rows(const char *tree_rows, ptrdiff_t stride, const int32_t *path, ptrdiff_t levels,
                         const char **rows) {
    for (ptrdiff_t level = 0; level < levels; level++)
        rows[level] = tree_rows + path[level] * stride;
}

/* Gradient of the score that decides at one level of a token's path. The token is walked down the path that it did not
 * take; `values` and `dots` are the activations of its own visits and the products of dy with their output rows. */
static float decision_gradient(const ufbert_backward *pass, ptrdiff_t tree, ptrdiff_t token, const float *values,
                               const float *dots) {
    const ufbert_fff *layer = pass->layer;
    const ptrdiff_t levels = layer->depth + 1, root = tree * layer->num_nodes;
    const ptrdiff_t level = pass->tried[token * layer->num_trees + tree], below = layer->depth - level;
    const int32_t *path = pass->path + (token * layer->num_trees + tree) * levels;
    const float score = pass->scores[(token * layer->num_trees + tree) * levels + level];
    const float *x = pass->x + token * layer->width_in, *squares = pass->out_squares + root;
    const char *rows[MOST_LEVELS] = {0};
    const float *dys[MOST_LEVELS] = {0};
    float others[MOST_LEVELS], other_dots[MOST_LEVELS], bells[LANES], taken = 0.0f, other = 0.0f, square = 0.0f;
    ptrdiff_t node = path[level], nodes[MOST_LEVELS];
    int right = !(score > 0.0f);
    for (ptrdiff_t i = 0; i < below; i++) {
        nodes[i] = node = 2 * node + 1 + right;
        rows[i] = layer->w_out + (root + node) * layer->stride_out;
        dys[i] = pass->dy + token * layer->width_out;
        prefetch_bytes(rows[i], layer->stride_out);
        dot_rows(0, layer->w_in + (root + node) * layer->stride_in, &x, 1, layer->width_in, others + i);
        others[i] += layer->b_in[root + node];
        right = others[i] > 0.0f;
    }
    dot_each(0, rows, dys, (int)below, layer->width_out, other_dots);
    activate(layer->activation, others, below);
    for (ptrdiff_t i = 0; i < below; i++) {
        const float own = values[level + 1 + i];
        taken += own * dots[level + 1 + i];
        other += others[i] * other_dots[i];
        square += own * own * squares[path[level + 1 + i]] + others[i] * others[i] * squares[nodes[i]];
    }
    vec bell;
    v_normal_cdf(v_set(score), &bell);
    v_store(bells, bell);
    const float loss = other + pass->switch_costs[token] * sqrtf(square) - taken; /* of going the other way */
    return 0.3989422804f * bells[0] * (float)layer->depth * (score > 0.0f ? -loss : loss);
}

/* One token in one tree: the gradients of its scores, its activations, and what the tree adds to dx. */
static void backward_token(const ufbert_backward *pass, ptrdiff_t tree, ptrdiff_t token) {
    const ufbert_fff *layer = pass->layer;
    const ptrdiff_t levels = layer->depth + 1, visit = (token * layer->num_trees + tree) * levels;
    const ptrdiff_t root = tree * layer->num_nodes;
    float *values = pass->activations + visit, *grads = pass->score_grads + visit;
    const char *rows[MOST_LEVELS] = {0};
    const float *dys[MOST_LEVELS] = {0};
    float dots[MOST_LEVELS];
    for (ptrdiff_t level = 0; level < levels; level++)
        dys[level] = pass->dy + token * layer->width_out;
    visited_rows(layer->w_out + root * layer->stride_out, layer->stride_out, pass->path + visit, levels, rows);
    dot_each(0, rows, dys, (int)levels, layer->width_out, grads);
    memcpy(values, pass->scores + visit, (size_t)levels * sizeof(float));
    memcpy(dots, grads, (size_t)levels * sizeof(float));
    activate_backward(layer->activation, values, grads, levels);
    if (pass->tried)
        grads[pass->tried[token * layer->num_trees + tree]] += decision_gradient(pass, tree, token, values, dots);
    visited_rows(layer->w_in + root * layer->stride_in, layer->stride_in, pass->path + visit, levels, rows);
    mix_rows(0, tree == 0 ? START_AT_ZERO : START_AT_Y, pass->dx + token * layer->width_in, rows, grads, levels,
             layer->width_in);
}

/* y += sum over visits of coefs[visit - above] * inputs[token of visit]; `above` levels above the given visits. */
static void add_tokens(float *y, const float *inputs, ptrdiff_t width, const float *coefs, const int64_t *visits,
                       const ptrdiff_t *tokens, ptrdiff_t above, ptrdiff_t count) {
    const char *rows[BACKWARD_TOKENS];
    float chosen[BACKWARD_TOKENS];
    for (ptrdiff_t i = 0; i < count; i++) {
        rows[i] = (const char *)(inputs + tokens[i] * width);
        chosen[i] = coefs[visits[i] - above];
    }
    mix_rows(0, START_AT_Y, y, rows, chosen, count, width);
}

/* What up to BACKWARD_TOKENS tokens that meet at a node add to the gradients of its rows and bias. */
static void add_to_node(const ufbert_backward *pass, ptrdiff_t node, const int64_t *visits, const ptrdiff_t *tokens,
                        ptrdiff_t above, ptrdiff_t count) {
    const ufbert_fff *layer = pass->layer;
    double bias = pass->db_in[node]; /* thousands of tokens meet at a root */
    add_tokens(pass->dw_in + node * layer->width_in, pass->x, layer->width_in, pass->score_grads, visits, tokens,
               above, count);
    add_tokens(pass->dw_out + node * layer->width_out, pass->dy, layer->width_out, pass->activations, visits, tokens,
               above, count);
    for (ptrdiff_t i = 0; i < count; i++)
        bias += pass->score_grads[visits[i] - above];
    pass->db_in[node] = (float)bias;
}

/* A token's place in x, dy and dx. Divisions are slow: it is found once, not for each row. */
static void find_tokens(const ufbert_backward *pass, const int64_t *visits, ptrdiff_t count, ptrdiff_t *tokens) {
    const ptrdiff_t per_token = pass->layer->num_trees * (pass->layer->depth + 1);
    for (ptrdiff_t i = 0; i < count; i++)
        tokens[i] = visits[i] / per_token;
}

/* Inline: GCC drops calls of a function that only prefetches. */
INLINE void prefetch_visits(const ufbert_backward *pass, ptrdiff_t leaf_visit) {
    const ptrdiff_t first = leaf_visit - pass->layer->depth, bytes = (pass->layer->depth + 1) * (ptrdiff_t)sizeof(float);
    prefetch_bytes((const char *)(pass->path + first), bytes);
    prefetch_bytes((const char *)(pass->scores + first), bytes);
    prefetch_bytes((const char *)(pass->activations + first), bytes);
    prefetch_bytes((const char *)(pass->score_grads + first), bytes);
}

/* Tokens by their visits to leaves of one tree, in the order of the leaves; rows of nodes above level `top` are left. */
static void backward_tokens(const ufbert_backward *pass, ptrdiff_t tree, ptrdiff_t top, const int64_t *leaf_visits,
                            ptrdiff_t count) {
    const ufbert_fff *layer = pass->layer;
    const ptrdiff_t root = tree * layer->num_nodes;
    ptrdiff_t tokens[BACKWARD_TOKENS + TOKENS_AHEAD];
    for (ptrdiff_t first = 0, now; first < count; first += now) {
        const int64_t *block = leaf_visits + first;
        const ptrdiff_t left = count - first;
        const ptrdiff_t known = left < BACKWARD_TOKENS + TOKENS_AHEAD ? left : BACKWARD_TOKENS + TOKENS_AHEAD;
        now = left < BACKWARD_TOKENS ? left : BACKWARD_TOKENS;
        find_tokens(pass, block, known, tokens);
        for (ptrdiff_t i = 0; i < now; i++) {
            if (first + i + VISITS_AHEAD < count)
                prefetch_visits(pass, block[i + VISITS_AHEAD]);
            if (i + TOKENS_AHEAD < known) {
                const ptrdiff_t later = tokens[i + TOKENS_AHEAD];
                prefetch_token(pass->dy, later, layer->width_out);
                prefetch_token(pass->dx, later, layer->width_in);
                prefetch_token(pass->x, later, layer->width_in);
            }
            backward_token(pass, tree, tokens[i]);
        }
        for (ptrdiff_t level = top; level <= layer->depth; level++) {
            const ptrdiff_t above = layer->depth - level;
            for (ptrdiff_t i = 0, run; i < now; i += run) {
                const int32_t node = pass->path[block[i] - above];
                for (run = 1; i + run < now && pass->path[block[i + run] - above] == node;)
                    run++;
                add_to_node(pass, root + node, block + i, tokens + i, above, run);
            }
        }
    }
}

/* Gradients of one node's rows and bias, by all its visits. */
static void backward_node(const ufbert_backward *pass, ptrdiff_t node, const int64_t *visits, ptrdiff_t count) {
    const ufbert_fff *layer = pass->layer;
    ptrdiff_t tokens[2 * BACKWARD_TOKENS]; /* of this block and the next */
    for (ptrdiff_t first = 0, now; first < count; first += now) {
        const ptrdiff_t known = count - first < 2 * BACKWARD_TOKENS ? count - first : 2 * BACKWARD_TOKENS;
        now = known < BACKWARD_TOKENS ? known : BACKWARD_TOKENS;
        find_tokens(pass, visits + first, known, tokens);
        for (ptrdiff_t i = now; i < known; i++) {
            prefetch_token(pass->x, tokens[i], layer->width_in);
            prefetch_token(pass->dy, tokens[i], layer->width_out);
        }
        add_to_node(pass, node, visits + first, tokens, 0, now);
    }
}
