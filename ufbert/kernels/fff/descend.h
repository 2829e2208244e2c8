/* Tokens down the trees, then their outputs.
 *
 * A tile of tokens goes down one tree in two parts. The top levels are passed in the tokens' own order, a slice at a
 * time, so that inputs are read from memory in order; their few rows stay in the second cache. Then all tokens are
 * sorted by subtree, and each subtree's tokens go to the leaves together. There outputs are summed, in the order of
 * trees and levels: where tokens share leaves, tree by tree, as neighbours then read the same rows (of rows that
 * are not float32, and so shorter, that is no gain); else in registers over all visited nodes, at the last tree. While one slice or subtree
 * is computed, the next one's inputs and rows are fetched.
 *
 * Within a part, tokens go in passes of a few levels: blocks of up to eight keep their inputs in the first cache, and
 * tokens at the same node share each load of its row. Between passes they are sorted by node. */
#ifndef UFBERT_DESCEND_H
#define UFBERT_DESCEND_H

#include "../activation.h"
#include "rows.h"

enum {
    PASS_LEVELS = 3,     /* levels of a pass: the sort between passes has 2^PASS_LEVELS children a node */
    TOKENS_IN_BLOCK = 8, /* 8 inputs of 768 floats leave a quarter of the first cache to the rows */
    SLICE_TOKENS = 64,   /* 64 inputs of 768 floats, and as many fetched ahead: 384 KB of the second cache */
    MOST_TOP_LEVELS = 7, /* 127 rows of 768 floats: 381 KB of it */
    AHEAD_NODES = 16,    /* of one level of the next subtree */
    AHEAD_TOKENS = 128,  /* of the next subtree */
    CHILD_BYTES = 3072,  /* of each row that a lone token may need next */
    FIRST_BYTES = 256,   /* of the same if a few tokens walk side by side; they use half of it */
    ROWS_AT_ONCE = 16,   /* visited nodes summed in one go: half a row each, they fit in the first cache */
    SHARING = 2,         /* least tokens a leaf for sums tree by tree, in float32 */
};

typedef struct {
    const ufbert_fff *fff;
    const float *x;
    float *y;
    int32_t *nodes; /* (tokens, visits) */
    float *scores;  /* (tokens, visits) */
    int stream;
    int by_tree; /* outputs are summed after each tree, not after the last one */
    ptrdiff_t visits, tree, first_visit;
    const char *rows_in, *rows_out; /* of this tree */
    int32_t *order, *at;            /* the tokens in the order of their nodes, and those nodes */
    int32_t *order_spare, *at_spare;
    fetch_plan *ahead;
} descent;

/* Tokens that walk alone wait for each row in turn, unless it is on its way while the node's score is computed: the
 * output row, and the beginnings of both children's rows where nothing else fetches ahead (with more tokens, those would
 * take bandwidth from the rest). For a lone token, the rest of its own row too, and more of its children's. Inline, as
 * GCC drops calls of functions that only prefetch. */
INLINE void prefetch_for(const descent *d, ptrdiff_t node, int has_children, int lone) {
    const ufbert_fff *fff = d->fff;
    const ptrdiff_t most = lone ? CHILD_BYTES : FIRST_BYTES, child = fff->stride_in < most ? fff->stride_in : most;
    if (lone)
        prefetch_bytes(d->rows_in + node * fff->stride_in + child, fff->stride_in - child);
    if (has_children && d->ahead->count == 0) {
        prefetch_bytes(d->rows_in + (2 * node + 1) * fff->stride_in, child);
        prefetch_bytes(d->rows_in + (2 * node + 2) * fff->stride_in, child);
    }
    prefetch_bytes(d->rows_out + node * fff->stride_out, fff->stride_out);
}

/* Writes down what a token found at a node; returns whether it goes right. */
INLINE int record_visit(const descent *d, int32_t token, ptrdiff_t level, int32_t node, float score) {
    const ptrdiff_t visit = token * d->visits + d->first_visit + level;
    d->nodes[visit] = node;
    d->scores[visit] = score;
    return score > 0.0f; /* strictly: 0 and NaN go left */
}

/* The step of a row's int8 values, or 1. */
INLINE float scale_of(const float *scales, ptrdiff_t node) { return scales ? scales[node] : 1.0f; }

/* Scores of `count` tokens at one node. Moves those that go left to the front, in order. */
static void visit_node(const descent *d, int32_t *tokens, int32_t *at, const float **xs, int count, ptrdiff_t level) {
    const ufbert_fff *fff = d->fff;
    const int32_t node = at[0];
    const ptrdiff_t place = d->tree * fff->num_nodes + node;
    const float scale = scale_of(fff->scales_in, place), bias = fff->b_in[place];
    const char *row = d->rows_in + node * fff->stride_in;
    float dots[TOKENS_AT_ONCE];
    int32_t right_tokens[TOKENS_IN_BLOCK];
    const float *right_xs[TOKENS_IN_BLOCK];
    int lefts = 0, rights = 0;
    for (int done = 0; done < count; done += TOKENS_AT_ONCE) {
        const int now = count - done < TOKENS_AT_ONCE ? count - done : TOKENS_AT_ONCE;
        fetch_ahead(d->ahead, now);
        dot_rows(fff->dtype, row, xs + done, now, fff->width_in, dots);
        for (int i = 0; i < now; i++) {
            const int32_t token = tokens[done + i];
            const float *x = xs[done + i];
            const int right = record_visit(d, token, level, node, dots[i] * scale + bias);
            /* Both are written and one index moves: the side is a coin toss that no branch predictor knows. */
            right_tokens[rights] = tokens[lefts] = token;
            right_xs[rights] = xs[lefts] = x;
            rights += right;
            lefts += !right;
        }
    }
    for (int i = 0; i < count; i++)
        at[i] = 2 * node + 1 + (i >= lefts);
    for (int i = 0; i < rights; i++) {
        tokens[lefts + i] = right_tokens[i];
        xs[lefts + i] = right_xs[i];
    }
}

static int run_length(const int32_t *at, int count) {
    int run = 1;
    while (run < count && at[run] == at[0])
        run++;
    return run;
}

/* Up to TOKENS_IN_BLOCK tokens, sorted by node, through levels first to end - 1. */
static void descend_block(const descent *d, int32_t *tokens, int32_t *at, int count, ptrdiff_t first, ptrdiff_t end) {
    const ufbert_fff *fff = d->fff;
    const float *xs[TOKENS_IN_BLOCK];
    for (int i = 0; i < count; i++)
        xs[i] = d->x + tokens[i] * fff->width_in;
    for (ptrdiff_t level = first; level < end; level++)
        for (int i = 0, run; i < count; i += run) {
            run = run_length(at + i, count - i);
            visit_node(d, tokens + i, at + i, xs + i, run, level);
        }
}

/* Up to TOKENS_IN_BLOCK tokens through levels first to end - 1, each on its own: few share a node. Nothing here
 * branches on a score. */
static void descend_alone(const descent *d, const int32_t *tokens, int32_t *at, int count, ptrdiff_t first,
                          ptrdiff_t end) {
    const ufbert_fff *fff = d->fff;
    const float *xs[TOKENS_IN_BLOCK];
    const char *rows[TOKENS_IN_BLOCK];
    float dots[TOKENS_IN_BLOCK];
    for (int i = 0; i < count; i++) {
        xs[i] = d->x + tokens[i] * fff->width_in;
        rows[i] = d->rows_in + at[i] * fff->stride_in;
    }
    for (ptrdiff_t level = first; level < end; level++) {
        fetch_ahead(d->ahead, count);
        for (int i = 0; i < count; i++)
            prefetch_for(d, at[i], level < fff->depth, count == 1);
        dot_each(fff->dtype, rows, xs, count, fff->width_in, dots);
        for (int i = 0; i < count; i++) {
            const int32_t node = at[i];
            const ptrdiff_t place = d->tree * fff->num_nodes + node;
            const float score = dots[i] * scale_of(fff->scales_in, place) + fff->b_in[place];
            at[i] = 2 * node + 1 + record_visit(d, tokens[i], level, node, score);
            rows[i] = d->rows_in + at[i] * fff->stride_in;
        }
    }
}

/* How many of the next tokens make a block: whole runs of one node where that wastes less than half of it. */
static int block_length(const int32_t *at, ptrdiff_t count) {
    const int most = count < TOKENS_IN_BLOCK ? (int)count : TOKENS_IN_BLOCK;
    int length = 0;
    while (length < most) {
        const int run =
            run_length(at + length, (int)(count - length < TOKENS_IN_BLOCK ? count - length : TOKENS_IN_BLOCK));
        if (length + run > most)
            return length >= TOKENS_IN_BLOCK / 2 ? length : most;
        length += run;
    }
    return length;
}

/* Sorts a segment by node, stably, after `levels` levels; it was sorted by their ancestors. Returns how many nodes. */
static ptrdiff_t sort_by_node(const descent *d, ptrdiff_t lo, ptrdiff_t hi, int levels) {
    ptrdiff_t distinct = 0;
    memcpy(d->order_spare + lo, d->order + lo, (size_t)(hi - lo) * sizeof(int32_t));
    memcpy(d->at_spare + lo, d->at + lo, (size_t)(hi - lo) * sizeof(int32_t));
    while (lo < hi) {
        const int32_t ancestor = (d->at_spare[lo] + 1) >> levels, first = (ancestor << levels) - 1;
        ptrdiff_t starts[(1 << PASS_LEVELS) + 1] = {0}, end = lo;
        for (; end < hi && (d->at_spare[end] + 1) >> levels == ancestor; end++)
            starts[d->at_spare[end] - first + 1]++;
        for (int child = 0; child < 1 << levels; child++) {
            distinct += starts[child + 1] > 0;
            starts[child + 1] += starts[child];
        }
        for (ptrdiff_t i = lo; i < end; i++) {
            const ptrdiff_t place = lo + starts[d->at_spare[i] - first]++;
            d->order[place] = d->order_spare[i];
            d->at[place] = d->at_spare[i];
        }
        lo = end;
    }
    return distinct;
}

/* The columns from `block` on of some rows. Of long rows a panel is too short a piece for the processor's prefetcher. */
INLINE void prefetch_panel(const ufbert_fff *fff, const char *const *rows, ptrdiff_t count, ptrdiff_t block) {
    const ptrdiff_t item = (ptrdiff_t)ufbert_item_size(fff->dtype), panel = PANEL_BLOCKS * UFBERT_BLOCK;
    if (fff->width_out <= 2 * panel || (block + PANEL_BLOCKS) * UFBERT_BLOCK > fff->width_out)
        return;
    for (ptrdiff_t r = 0; r < count; r++)
        prefetch_bytes(rows[r] + block * UFBERT_BLOCK * item, panel * item);
}

/* Outputs of up to TOKENS_IN_BLOCK tokens, or what this tree adds to them. Column panels are the outer loop: half rows of
 * all visited nodes fit in the first cache, and neighbours in the order share most of them. */
static void write_outputs(const descent *d, const int32_t *tokens, int count) {
    const ufbert_fff *fff = d->fff;
    const ptrdiff_t tree_visits = fff->depth + 1, n = fff->width_out;
    const ptrdiff_t begin = d->by_tree ? d->first_visit : 0, end = d->by_tree ? begin + tree_visits : d->visits;
    float coefs[TOKENS_IN_BLOCK * ROWS_AT_ONCE], scales[TOKENS_IN_BLOCK * ROWS_AT_ONCE];
    const char *rows[TOKENS_IN_BLOCK * ROWS_AT_ONCE];
    for (ptrdiff_t first = begin; first < end; first += ROWS_AT_ONCE) {
        const ptrdiff_t now = end - first < ROWS_AT_ONCE ? end - first : ROWS_AT_ONCE;
        const int start = first == 0 ? START_AT_ZERO : START_AT_Y;
        const int past = d->stream && now == d->visits ? PAST_THE_CACHES : THROUGH_CACHES;
        for (int t = 0; t < count; t++) {
            const ptrdiff_t base = tokens[t] * d->visits + first;
            ptrdiff_t tree = first / tree_visits, level = first % tree_visits;
            for (ptrdiff_t v = 0; v < now; v++) {
                coefs[t * now + v] = d->scores[base + v];
                const ptrdiff_t node = tree * fff->num_nodes + d->nodes[base + v];
                rows[t * now + v] = fff->w_out + node * fff->stride_out;
                if (fff->scales_out)
                    scales[t * now + v] = fff->scales_out[node];
                if (++level == tree_visits) {
                    level = 0;
                    tree++;
                }
            }
        }
        activate(fff->activation, coefs, count * now);
        if (fff->scales_out)
            for (ptrdiff_t i = 0; i < count * now; i++)
                coefs[i] *= scales[i];
        for (ptrdiff_t block = 0, next = n; block * UFBERT_BLOCK < n; block = next)
            for (int t = 0; t < count; t++) {
                if (block == 0)
                    fetch_ahead(d->ahead, now);
                prefetch_panel(fff, rows + t * now, now, block + PANEL_BLOCKS);
                next = mix_columns(fff->dtype, start, past, d->y + tokens[t] * n, rows + t * now, coefs + t * now, now,
                                   block, n, first + now == end ? fff->columns_out : NULL);
            }
    }
}

static void write_segment(const descent *d, ptrdiff_t lo, ptrdiff_t hi) {
    for (; lo < hi; lo += TOKENS_IN_BLOCK)
        write_outputs(d, d->order + lo, hi - lo < TOKENS_IN_BLOCK ? (int)(hi - lo) : TOKENS_IN_BLOCK);
}

static void descend_passes(const descent *d, ptrdiff_t lo, ptrdiff_t hi, ptrdiff_t level, ptrdiff_t end) {
    for (ptrdiff_t length; lo < hi; lo += length) {
        length = block_length(d->at + lo, hi - lo);
        descend_block(d, d->order + lo, d->at + lo, (int)length, level, end);
    }
}

/* Tokens order[lo:hi], which are sorted by the node of level `first` that they stand at, through levels to end - 1. */
static void descend(const descent *d, ptrdiff_t lo, ptrdiff_t hi, ptrdiff_t first, ptrdiff_t end) {
    ptrdiff_t distinct = 1; /* nodes that the tokens stand at, or fewer */
    for (ptrdiff_t level = first, next; level < end; level = next) {
        if (2 * distinct > hi - lo) {
            for (ptrdiff_t i = lo; i < hi; i += TOKENS_IN_BLOCK)
                descend_alone(d, d->order + i, d->at + i, hi - i < TOKENS_IN_BLOCK ? (int)(hi - i) : TOKENS_IN_BLOCK,
                              level, end);
            return;
        }
        next = level + PASS_LEVELS > end ? end : level + PASS_LEVELS;
        descend_passes(d, lo, hi, level, next);
        if (next < end)
            distinct = sort_by_node(d, lo, hi, PASS_LEVELS);
    }
}

/* Levels that tokens pass in their own order, before they are sorted by subtree. */
static ptrdiff_t top_levels(const ufbert_fff *fff, ptrdiff_t tokens) {
    ptrdiff_t levels = 0;
    if (fff->depth < PASS_LEVELS)
        return 0;
    while (levels < fff->depth && levels < MOST_TOP_LEVELS && tokens >> levels > SLICE_TOKENS)
        levels++;
    return levels;
}

/* Sorts a tile by its nodes of one level. starts[i]: where the tokens of its ith node begin. */
static void sort_tile(const descent *d, ptrdiff_t tokens, ptrdiff_t level, ptrdiff_t *starts) {
    const int32_t first = (1 << level) - 1;
    ptrdiff_t place[1 << MOST_TOP_LEVELS] = {0}, sum = 0;
    memcpy(d->order_spare, d->order, (size_t)tokens * sizeof(int32_t));
    memcpy(d->at_spare, d->at, (size_t)tokens * sizeof(int32_t));
    for (ptrdiff_t i = 0; i < tokens; i++)
        place[d->at_spare[i] - first]++;
    for (ptrdiff_t node = 0; node < 1 << level; node++) {
        const ptrdiff_t count = place[node];
        starts[node] = place[node] = sum;
        sum += count;
    }
    starts[1 << level] = sum;
    for (ptrdiff_t i = 0; i < tokens; i++) {
        const ptrdiff_t to = place[d->at_spare[i] - first]++;
        d->order[to] = d->order_spare[i];
        d->at[to] = d->at_spare[i];
    }
}

/* The rows of the subtree of node `root`, which is on `level`, in one matrix. */
static void plan_subtree(const descent *d, const char *rows, ptrdiff_t stride, ptrdiff_t root, ptrdiff_t level) {
    for (ptrdiff_t count = 1; level <= d->fff->depth && count <= AHEAD_NODES; count *= 2, level++, root = 2 * root + 1)
        plan_fetch(d->ahead, rows + root * stride, count * stride);
}

static void descend_slices(const descent *d, ptrdiff_t tokens, ptrdiff_t top) {
    const ptrdiff_t width = d->fff->width_in;
    for (ptrdiff_t lo = 0, hi, next; lo < tokens; lo = hi) {
        hi = lo + SLICE_TOKENS < tokens ? lo + SLICE_TOKENS : tokens;
        next = hi + SLICE_TOKENS < tokens ? hi + SLICE_TOKENS : tokens;
        plan_nothing(d->ahead);
        plan_fetch(d->ahead, d->x + hi * width, (next - hi) * width * (ptrdiff_t)sizeof(float));
        spread_over(d->ahead, (hi - lo) * top);
        descend(d, lo, hi, 0, top);
    }
}

/* Subtree by subtree of level `top` to the leaves; the outputs too, if it is time for them. */
static void descend_subtrees(const descent *d, const ptrdiff_t *starts, ptrdiff_t top) {
    const ufbert_fff *fff = d->fff;
    const ptrdiff_t levels = fff->depth + 1, subtrees = (ptrdiff_t)1 << top, bytes = fff->width_in * sizeof(float);
    const int writes = d->by_tree || d->tree + 1 == fff->num_trees;
    const ptrdiff_t sums = d->by_tree ? levels : d->visits;
    for (ptrdiff_t i = 0; i < subtrees; i++) {
        const ptrdiff_t lo = starts[i], hi = starts[i + 1], next = starts[i + 2 < subtrees ? i + 2 : subtrees];
        plan_nothing(d->ahead);
        if (next > hi) {
            plan_subtree(d, d->rows_in, fff->stride_in, subtrees + i, top);
            for (ptrdiff_t token = hi; token < next && token < hi + AHEAD_TOKENS; token++)
                plan_fetch(d->ahead, d->x + d->order[token] * fff->width_in, bytes);
            if (writes)
                plan_subtree(d, d->rows_out, fff->stride_out, subtrees + i, top);
        }
        spread_over(d->ahead, (hi - lo) * (levels - top + (writes ? sums : 0)));
        descend(d, lo, hi, top, levels);
        if (writes)
            write_segment(d, lo, hi);
    }
}

static void forward_tile(descent *d, ptrdiff_t tokens) {
    const ufbert_fff *fff = d->fff;
    const ptrdiff_t top = top_levels(fff, tokens), levels = fff->depth + 1;
    ptrdiff_t starts[(1 << MOST_TOP_LEVELS) + 1] = {0, tokens};
    d->by_tree = fff->num_trees > 1 && fff->dtype == UFBERT_F32 && tokens >> fff->depth >= SHARING;
    for (d->tree = 0; d->tree < fff->num_trees; d->tree++) {
        d->first_visit = d->tree * levels;
        d->rows_in = fff->w_in + d->tree * fff->num_nodes * fff->stride_in;
        d->rows_out = fff->w_out + d->tree * fff->num_nodes * fff->stride_out;
        for (ptrdiff_t i = 0; i < tokens; i++) {
            d->order[i] = (int32_t)i;
            d->at[i] = 0;
        }
        if (top > 0) {
            descend_slices(d, tokens, top);
            sort_tile(d, tokens, top, starts);
        }
        descend_subtrees(d, starts, top);
    }
}

static void fff_forward(const ufbert_fff *fff, const float *x, ptrdiff_t tokens, float *y, int32_t *path, float *scores,
                        int stream, void *scratch) {
    const ptrdiff_t most = ufbert_tile_tokens(fff), tile = tokens < most ? tokens : most;
    fetch_plan ahead;
    descent d = {.fff = fff, .visits = fff->num_trees * (fff->depth + 1), .stream = stream, .ahead = &ahead};
    d.order = scratch;
    d.at = d.order + tile;
    d.order_spare = d.at + tile;
    d.at_spare = d.order_spare + tile;
    for (ptrdiff_t done = 0; done < tokens; done += tile) {
        d.x = x + done * fff->width_in;
        d.y = y + done * fff->width_out;
        d.nodes = path ? path + done * d.visits : d.at_spare + tile;
        d.scores = scores ? scores + done * d.visits : (float *)(d.at_spare + tile + tile * d.visits);
        forward_tile(&d, tokens - done < tile ? tokens - done : tile);
    }
    if (stream)
        v_stream_end();
}

#endif
