/* Tokens down the trees, then their outputs.
 *
 * A tile of tokens goes down one tree in passes of a few levels. Within a pass, blocks of up to eight tokens keep
 * their inputs in the first cache, and tokens at the same node share each load of its row. Between passes the tokens
 * are sorted by node; a segment too large for the second cache is then split by subtree. When a segment has reached
 * the leaves, its outputs are summed in registers over all visited nodes, in the order of trees and levels. */
#include <string.h>

enum {
    PASS_LEVELS = 3,      /* levels of a pass: the sort between passes has 2^PASS_LEVELS children a node */
    TOKENS_IN_BLOCK = 8,  /* 8 inputs of 768 floats leave a quarter of the first cache to the rows */
    SEGMENT_TOKENS = 128, /* inputs of 768 floats: 384 KB of the second cache */
    ROOT_AT_ONCE = 1,     /* at the root inputs come from memory, in order: one stream is read faster than eight */
    PREFETCH_BYTES = 3072, /* of a row that a lone token may need next */
    ROWS_AT_ONCE = 16,    /* visited nodes summed in one go: half a row each, they fit in the first cache */
};

typedef struct {
    const ufbert_fff *layer;
    const float *x;
    float *y;
    int32_t *nodes; /* (tokens, visits) */
    float *scores;  /* (tokens, visits) */
    int stream;
    ptrdiff_t visits, tree, first_visit;
    const char *rows_in; /* of this tree */
    int32_t *order, *at; /* the tokens in the order of their nodes, and those nodes */
    int32_t *order_spare, *at_spare;
} descent;

INLINE void prefetch_row(const char *row, ptrdiff_t bytes) {
    for (ptrdiff_t at = 0; at < bytes; at += 64)
        __builtin_prefetch(row + at, 0, 2);
}

/* A lone token waits for each row in turn, unless both children and the output row are on their way while the node's
 * score is computed. With more tokens in flight this only costs bandwidth. */
static void prefetch_for_one(const ufbert_fff *layer, const char *rows_in, const char *rows_out, ptrdiff_t node,
                             int has_children) {
    const ptrdiff_t item = layer->bfloat16 ? 2 : 4;
    const ptrdiff_t in = layer->width_in * item < PREFETCH_BYTES ? layer->width_in * item : PREFETCH_BYTES;
    const ptrdiff_t out = layer->width_out * item < PREFETCH_BYTES ? layer->width_out * item : PREFETCH_BYTES;
    if (has_children) {
        prefetch_row(rows_in + (2 * node + 1) * layer->stride_in, in);
        prefetch_row(rows_in + (2 * node + 2) * layer->stride_in, in);
    }
    prefetch_row(rows_out + node * layer->stride_out, out);
}

/* Writes down what a token found at a node; returns whether it goes right. */
INLINE int record(const descent *d, int32_t token, ptrdiff_t level, int32_t node, float score) {
    const ptrdiff_t visit = token * d->visits + d->first_visit + level;
    d->nodes[visit] = node;
    d->scores[visit] = score;
    return score > 0.0f; /* strictly: 0 and NaN go left */
}

/* Scores of `count` tokens at one node, at most `at_once` by one load of its row. Moves those that go left to the
 * front, in order; returns how many. */
static int visit_node(const descent *d, int32_t *tokens, int32_t *at, const float **xs, int count, ptrdiff_t level,
                      int at_once) {
    const ufbert_fff *layer = d->layer;
    const int32_t node = at[0];
    const float bias = layer->b_in[d->tree * layer->num_nodes + node];
    const char *row = d->rows_in + node * layer->stride_in;
    float dots[TOKENS_AT_ONCE];
    int32_t right_tokens[TOKENS_IN_BLOCK];
    const float *right_xs[TOKENS_IN_BLOCK];
    int lefts = 0, rights = 0;
    for (int done = 0; done < count; done += at_once) {
        const int now = count - done < at_once ? count - done : at_once;
        dot_rows(layer->bfloat16, row, xs + done, now, layer->width_in, dots);
        for (int i = 0; i < now; i++) {
            const int32_t token = tokens[done + i];
            const float *x = xs[done + i];
            const int right = record(d, token, level, node, dots[i] + bias);
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
    return lefts;
}

static int run_length(const int32_t *at, int count) {
    int run = 1;
    while (run < count && at[run] == at[0])
        run++;
    return run;
}

/* Up to TOKENS_IN_BLOCK tokens, sorted by node, through levels first to end - 1. */
static void descend_block(const descent *d, int32_t *tokens, int32_t *at, int count, ptrdiff_t first, ptrdiff_t end) {
    const ufbert_fff *layer = d->layer;
    const float *xs[TOKENS_IN_BLOCK];
    for (int i = 0; i < count; i++)
        xs[i] = d->x + tokens[i] * layer->width_in;
    for (ptrdiff_t level = first; level < end; level++)
        for (int i = 0, run; i < count; i += run) {
            run = run_length(at + i, count - i);
            visit_node(d, tokens + i, at + i, xs + i, run, level, level == 0 ? ROOT_AT_ONCE : TOKENS_AT_ONCE);
        }
}

/* Up to TOKENS_IN_BLOCK tokens from level `first` to their leaves, each on its own: few share a node. Nothing here
 * branches on a score. */
static void descend_alone(const descent *d, const int32_t *tokens, int32_t *at, int count, ptrdiff_t first) {
    const ufbert_fff *layer = d->layer;
    const char *rows_out = layer->w_out + d->tree * layer->num_nodes * layer->stride_out;
    const float *xs[TOKENS_IN_BLOCK];
    const char *rows[TOKENS_IN_BLOCK];
    float dots[TOKENS_IN_BLOCK];
    for (int i = 0; i < count; i++) {
        xs[i] = d->x + tokens[i] * layer->width_in;
        rows[i] = d->rows_in + at[i] * layer->stride_in;
    }
    for (ptrdiff_t level = first; level <= layer->depth; level++) {
        if (count == 1)
            prefetch_for_one(layer, d->rows_in, rows_out, at[0], level < layer->depth);
        dot_each(layer->bfloat16, rows, xs, count, layer->width_in, dots);
        for (int i = 0; i < count; i++) {
            const int32_t node = at[i];
            const float score = dots[i] + layer->b_in[d->tree * layer->num_nodes + node];
            at[i] = 2 * node + 1 + record(d, tokens[i], level, node, score);
            rows[i] = d->rows_in + at[i] * layer->stride_in;
        }
    }
}

/* How many of the next tokens make a block: whole runs of one node where that wastes less than half of it. */
static int block_length(const int32_t *at, ptrdiff_t count) {
    const int most = count < TOKENS_IN_BLOCK ? (int)count : TOKENS_IN_BLOCK;
    int length = 0;
    while (length < most) {
        const int run = run_length(at + length, (int)(count - length < TOKENS_IN_BLOCK ? count - length : TOKENS_IN_BLOCK));
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

/* Outputs of up to TOKENS_IN_BLOCK tokens. Column panels are the outer loop: half rows of all visited nodes fit in
 * the first cache, and neighbours in the order share most of them. */
static void write_outputs(const descent *d, const int32_t *tokens, int count) {
    const ufbert_fff *layer = d->layer;
    const ptrdiff_t tree_visits = layer->depth + 1, n = layer->width_out;
    float coefs[TOKENS_IN_BLOCK * ROWS_AT_ONCE];
    const char *rows[TOKENS_IN_BLOCK * ROWS_AT_ONCE];
    for (ptrdiff_t first = 0; first < d->visits; first += ROWS_AT_ONCE) {
        const ptrdiff_t now = d->visits - first < ROWS_AT_ONCE ? d->visits - first : ROWS_AT_ONCE;
        const int start = first == 0 ? START_AT_ZERO : START_AT_Y;
        const int past = d->stream && now == d->visits ? PAST_THE_CACHES : THROUGH_CACHES;
        for (int t = 0; t < count; t++) {
            const ptrdiff_t base = tokens[t] * d->visits + first;
            ptrdiff_t tree = first / tree_visits, level = first % tree_visits;
            for (ptrdiff_t v = 0; v < now; v++) {
                coefs[t * now + v] = d->scores[base + v];
                rows[t * now + v] = layer->w_out + (tree * layer->num_nodes + d->nodes[base + v]) * layer->stride_out;
                if (++level == tree_visits) {
                    level = 0;
                    tree++;
                }
            }
        }
        activate(layer->activation, coefs, count * now);
        for (ptrdiff_t block = 0, next = n; block * UFBERT_BLOCK < n; block = next)
            for (int t = 0; t < count; t++)
                next = mix_columns(layer->bfloat16, start, past, d->y + tokens[t] * n, rows + t * now,
                                   coefs + t * now, now, block, n);
    }
}

static void write_segment(const descent *d, ptrdiff_t lo, ptrdiff_t hi) {
    for (; lo < hi; lo += TOKENS_IN_BLOCK)
        write_outputs(d, d->order + lo, hi - lo < TOKENS_IN_BLOCK ? (int)(hi - lo) : TOKENS_IN_BLOCK);
}

static ptrdiff_t end_of_node(const int32_t *at, ptrdiff_t lo, ptrdiff_t hi) {
    const int32_t node = at[lo];
    while (lo < hi && at[lo] == node)
        lo++;
    return lo;
}

static void descend_passes(const descent *d, ptrdiff_t lo, ptrdiff_t hi, ptrdiff_t level, ptrdiff_t end) {
    for (ptrdiff_t length; lo < hi; lo += length) {
        length = block_length(d->at + lo, hi - lo);
        descend_block(d, d->order + lo, d->at + lo, (int)length, level, end);
    }
}

static void descend_segment(const descent *d, ptrdiff_t lo, ptrdiff_t hi, ptrdiff_t level);

/* A segment that is too large: whole nodes, as many as fit in the second cache, one part after another. */
static void split_segment(const descent *d, ptrdiff_t lo, ptrdiff_t hi, ptrdiff_t level) {
    while (lo < hi) {
        ptrdiff_t cut = end_of_node(d->at, lo, hi), next = cut;
        for (; next - lo <= SEGMENT_TOKENS && cut < hi; next = end_of_node(d->at, cut, hi))
            cut = next;
        descend_segment(d, lo, cut, level);
        lo = cut;
    }
}

/* Tokens order[lo:hi], which stand at nodes of `level` and are sorted by them, to the leaves. */
static void descend_segment(const descent *d, ptrdiff_t lo, ptrdiff_t hi, ptrdiff_t level) {
    const ptrdiff_t levels = d->layer->depth + 1;
    ptrdiff_t distinct = 1; /* nodes that the tokens stand at, or fewer */
    while (level < levels) {
        if (2 * distinct > hi - lo && hi - lo <= SEGMENT_TOKENS) {
            for (ptrdiff_t i = lo; i < hi; i += TOKENS_IN_BLOCK)
                descend_alone(d, d->order + i, d->at + i, hi - i < TOKENS_IN_BLOCK ? (int)(hi - i) : TOKENS_IN_BLOCK,
                              level);
            break;
        }
        const ptrdiff_t end = level + PASS_LEVELS > levels ? levels : level + PASS_LEVELS;
        descend_passes(d, lo, hi, level, end);
        if (end == levels)
            break;
        distinct = sort_by_node(d, lo, hi, PASS_LEVELS);
        level = end;
        if (hi - lo > SEGMENT_TOKENS && distinct > 1) {
            split_segment(d, lo, hi, level);
            return;
        }
    }
    if (d->tree + 1 == d->layer->num_trees)
        write_segment(d, lo, hi);
}

static void forward_tile(descent *d, ptrdiff_t tokens) {
    const ufbert_fff *layer = d->layer;
    for (d->tree = 0; d->tree < layer->num_trees; d->tree++) {
        d->first_visit = d->tree * (layer->depth + 1);
        d->rows_in = layer->w_in + d->tree * layer->num_nodes * layer->stride_in;
        for (ptrdiff_t i = 0; i < tokens; i++) {
            d->order[i] = (int32_t)i;
            d->at[i] = 0;
        }
        descend_segment(d, 0, tokens, 0);
    }
}

static void fff_forward(const ufbert_fff *layer, const float *x, ptrdiff_t tokens, float *y, int32_t *path,
                        float *scores, int stream, void *scratch) {
    const ptrdiff_t most = ufbert_tile_tokens(layer), tile = tokens < most ? tokens : most;
    descent d = {.layer = layer, .visits = layer->num_trees * (layer->depth + 1), .stream = stream};
    d.order = scratch;
    d.at = d.order + tile;
    d.order_spare = d.at + tile;
    d.at_spare = d.order_spare + tile;
    for (ptrdiff_t done = 0; done < tokens; done += tile) {
        d.x = x + done * layer->width_in;
        d.y = y + done * layer->width_out;
        d.nodes = path ? path + done * d.visits : d.at_spare + tile;
        d.scores = scores ? scores + done * d.visits : (float *)(d.at_spare + tile + tile * d.visits);
        forward_tile(&d, tokens - done < tile ? tokens - done : tile);
    }
    if (stream)
        v_stream_end();
}
