/* What stands around the backward pass of each subtree: the order of the tokens, and the sums of the nodes above. */
#include "fff.h"

#include <string.h>

/* Stable; a token's key is keys[token * stride] - first. starts (num_keys + 1,): where each key's tokens begin. */
static void counting_sort(const int32_t *tokens, ptrdiff_t num_tokens, const int32_t *keys, ptrdiff_t stride,
                          ptrdiff_t first, ptrdiff_t num_keys, int64_t *starts, int32_t *sorted) {
    memset(starts, 0, (size_t)(num_keys + 1) * sizeof *starts);
    for (ptrdiff_t i = 0; i < num_tokens; i++)
        starts[keys[tokens[i] * stride] - first]++;
    int64_t before = 0;
    for (ptrdiff_t key = 0; key < num_keys; key++) {
        const int64_t count = starts[key];
        starts[key] = before;
        before += count;
    }
    for (ptrdiff_t i = 0; i < num_tokens; i++)
        sorted[starts[keys[tokens[i] * stride] - first]++] = tokens[i];
    for (ptrdiff_t key = num_keys; key > 0; key--) /* each ran ahead to where the next one begins */
        starts[key] = starts[key - 1];
    starts[0] = 0;
}

void ufbert_sort_tokens(const ufbert_backward *work, ptrdiff_t tree, ptrdiff_t num_tokens, int64_t *starts,
                        int32_t *tokens, int32_t *spare) {
    const ufbert_fff *fff = work->fff;
    const ptrdiff_t visits = fff->num_trees * (fff->depth + 1), leaves = (fff->num_nodes + 1) / 2;
    const int32_t *nodes = work->path + tree * (fff->depth + 1) + fff->depth; /* of the last level */
    for (ptrdiff_t token = 0; token < num_tokens; token++)
        spare[token] = tokens[token] = (int32_t)token;
    if (work->tried)
        counting_sort(tokens, num_tokens, work->tried + tree, fff->num_trees, 0, fff->depth, starts, spare);
    counting_sort(spare, num_tokens, nodes, visits, leaves - 1, leaves, starts, tokens);
}

void ufbert_add_above(const ufbert_backward *work, ptrdiff_t tree, ptrdiff_t top, const float *above) {
    const ufbert_fff *fff = work->fff;
    const ptrdiff_t stride = ufbert_floats_above(fff), subtrees = (ptrdiff_t)1 << top;
    for (ptrdiff_t i = 0; i < subtrees; i++)
        for (ptrdiff_t level = 0; level < top; level++) {
            const ptrdiff_t node = tree * fff->num_nodes + ((subtrees + i) >> (top - level)) - 1;
            const float *sums = above + (i * top + level) * stride;
            float *dw_in = work->dw_in + node * fff->width_in, *dw_out = work->dw_out + node * fff->width_out;
            for (ptrdiff_t k = 0; k < fff->width_in; k++)
                dw_in[k] += sums[k];
            for (ptrdiff_t k = 0; k < fff->width_out; k++)
                dw_out[k] += sums[fff->width_in + k];
            work->db_in[node] += sums[fff->width_in + fff->width_out];
        }
}
