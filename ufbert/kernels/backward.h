/* Gradients through the visited nodes; decisions carry none.
 *
 * First token by token, in the order of their leaves, so that neighbours share rows: the gradient that reaches each
 * visited node, and dx. Then node by node: its rows' gradients are weighted sums of its tokens' x and dy, in the order
 * of the tokens, each by one thread. */

enum {
    BACKWARD_ROWS = 128, /* pointers on the stack, as rows and coefficients of one sum */
    TOKENS_AT_A_TIME = 32, /* while they are summed, the next ones are fetched */
};

static void backward_tokens(const ufbert_backward *pass, const int64_t *leaf_visits, ptrdiff_t count) {
    const ufbert_fff *layer = pass->layer;
    const ptrdiff_t tree_visits = layer->depth + 1, visits = layer->num_trees * tree_visits;
    const char *rows[BACKWARD_ROWS];
    for (ptrdiff_t leaf = 0; leaf < count; leaf++) {
        const ptrdiff_t token = leaf_visits[leaf] / visits;
        const float *dy = pass->dy + token * layer->width_out;
        float *values = pass->activations + token * visits, *grads = pass->score_grads + token * visits;
        for (ptrdiff_t v = 0; v < visits; v++) {
            const ptrdiff_t node = v / tree_visits * layer->num_nodes + pass->path[token * visits + v];
            values[v] = pass->scores[token * visits + v];
            dot_rows(0, layer->w_out + node * layer->stride_out, &dy, 1, layer->width_out, grads + v);
        }
        activate_backward(layer->activation, values, grads, visits);
        for (ptrdiff_t v = 0; v < visits; v += BACKWARD_ROWS) {
            const ptrdiff_t now = visits - v < BACKWARD_ROWS ? visits - v : BACKWARD_ROWS;
            for (ptrdiff_t i = 0; i < now; i++) {
                const ptrdiff_t tree = (v + i) / tree_visits;
                rows[i] = layer->w_in + (tree * layer->num_nodes + pass->path[token * visits + v + i]) * layer->stride_in;
            }
            mix_rows(0, v == 0 ? START_AT_ZERO : START_AT_Y, pass->dx + token * layer->width_in, rows, grads + v, now,
                     layer->width_in);
        }
    }
}

/* y = sum over visits of coefs[visit] * tokens[visit / visits_per_token]. */
static void sum_of_tokens(float *y, const float *tokens, ptrdiff_t width, const float *coefs, const int64_t *visits,
                          ptrdiff_t count, ptrdiff_t visits_per_token) {
    const char *rows[TOKENS_AT_A_TIME];
    float chosen[TOKENS_AT_A_TIME];
    for (ptrdiff_t first = 0; first < count; first += TOKENS_AT_A_TIME) {
        const ptrdiff_t now = count - first < TOKENS_AT_A_TIME ? count - first : TOKENS_AT_A_TIME;
        for (ptrdiff_t i = first + now; i < count && i < first + 2 * TOKENS_AT_A_TIME; i++)
            prefetch_bytes((const char *)(tokens + visits[i] / visits_per_token * width), width * sizeof(float));
        for (ptrdiff_t i = 0; i < now; i++) {
            rows[i] = (const char *)(tokens + visits[first + i] / visits_per_token * width);
            chosen[i] = coefs[visits[first + i]];
        }
        mix_rows(0, first == 0 ? START_AT_ZERO : START_AT_Y, y, rows, chosen, now, width);
    }
}

static void backward_node(const ufbert_backward *pass, ptrdiff_t node, const int64_t *visits, ptrdiff_t count) {
    const ufbert_fff *layer = pass->layer;
    const ptrdiff_t per_token = layer->num_trees * (layer->depth + 1);
    double bias = 0.0; /* thousands of tokens meet at a root */
    sum_of_tokens(pass->dw_in + node * layer->width_in, pass->x, layer->width_in, pass->score_grads, visits, count,
                  per_token);
    sum_of_tokens(pass->dw_out + node * layer->width_out, pass->dy, layer->width_out, pass->activations, visits, count,
                  per_token);
    for (ptrdiff_t i = 0; i < count; i++)
        bias += pass->score_grads[visits[i]];
    pass->db_in[node] = (float)bias;
}
