/* Many tokens through trees, four side by side, in their own order as far as the rows that they may need stay in cache.
 *
 * Four tokens walk together and share a row only where all stand at one node. That costs more arithmetic than sorting
 * them at each node, and less of everything else: no branch depends on a score, and an input is read from the first
 * cache at all levels but the first.
 *
 * A tree whose input rows fit in the second cache is walked to the leaves at once. Of a larger one, tokens walk the top
 * levels, are sorted by subtree, and walk on subtree by subtree. Then they are sorted by leaf, and neighbours add their
 * output rows in pairs (`mix_pair`). Trees take turns; each but the first adds to y. */
#ifndef UFBERT_WALK_H
#define UFBERT_WALK_H

#include "../activation.h"
#include "pairs.h"

enum {
    WALKERS = UFBERT_WALKERS,
    WALK_SLICE = 16,               /* tokens whose inputs are fetched while as many walk */
    WALK_CACHE = 400 << 10,        /* of the second cache, for the rows of the levels that are walked in order */
    LEAST_IN_SUBTREE = 64,         /* tokens; else rows are read again for too few */
    MOST_SORTED_LEVELS = 7,        /* of one counting sort */
    WALK_LEAST = 8,                /* tokens of a call: fewer go down as in descend.h */
    WALK_TILE_FLOATS = 400 * 1024, /* of x and y, which several trees read and write in turn */
    TOKENS_TO_WRITE = 8,
};

typedef struct {
    const ufbert_fff *fff;
    const float *x;
    float *y, *scores;      /* the scores of a token lie `stride` after those of the one before it */
    int32_t *path;          /* (tokens, visits) or NULL */
    ptrdiff_t stride, tree; /* of this tree are: */
    const char *rows_in, *rows_out;
    const float *biases, *scales_in, *scales_out;
    float *tree_scores;
    int32_t *order, *at; /* the tokens in the order of their nodes, and those nodes */
    int32_t *order_spare, *at_spare;
    int stream, is_cold; /* whether inputs come from memory */
    float *copies;       /* of the inputs of those who walk, if loads of x would cross cache lines; else NULL */
    fetch_plan *ahead;
} walk;

static void begin_tree(walk *w, ptrdiff_t tree) {
    const ufbert_fff *fff = w->fff;
    const ptrdiff_t first = tree * fff->num_nodes;
    w->tree = tree;
    w->rows_in = fff->w_in + first * fff->stride_in;
    w->rows_out = fff->w_out + first * fff->stride_out;
    w->biases = fff->b_in + first;
    w->scales_in = fff->scales_in ? fff->scales_in + first : NULL;
    w->scales_out = fff->scales_out ? fff->scales_out + first : NULL;
    w->tree_scores = w->scores + (w->stride > fff->depth + 1 ? tree * (fff->depth + 1) : 0);
}

/* Products of WALKERS inputs with one row. From then on xs are their copies. */
static void dot_copying(const walk *w, const char *row, const float **xs, float *dots) {
    float *copies[WALKERS];
    for (int i = 0; i < WALKERS; i++)
        copies[i] = w->copies + i * ufbert_copy_stride(w->fff);
#define CALL(constant) dot_unrolled(WALKERS, 1, 0, constant, &row, xs, w->fff->width_in, dots, copies)
    SWITCH_DTYPE(w->fff->dtype, CALL)
#undef CALL
    for (int i = 0; i < WALKERS; i++)
        xs[i] = copies[i];
}

/* Up to WALKERS tokens, who all stand at one node, through levels first to end - 1. */
static void walk_few(const walk *w, const int32_t *tokens, int32_t *at, int count, ptrdiff_t first, ptrdiff_t end) {
    const ufbert_fff *fff = w->fff;
    const float *xs[WALKERS];
    const char *rows[WALKERS];
    float dots[WALKERS], scores[UFBERT_MAX_DEPTH + 1][WALKERS];
    int32_t nodes[WALKERS];
    for (int i = 0; i < WALKERS; i++) {
        const int token = i < count ? i : 0; /* the rest of four repeats the first one */
        nodes[i] = at[token];
        xs[i] = w->x + tokens[token] * fff->width_in;
    }
    for (ptrdiff_t level = first; level < end; level++) {
        int apart = 0;
        for (int i = 0; i < WALKERS; i++) {
            rows[i] = w->rows_in + nodes[i] * fff->stride_in;
            apart |= nodes[i] ^ nodes[0];
        }
        fetch_ahead(w->ahead, count);
        if (level == first && w->copies)
            dot_copying(w, rows[0], xs, dots);
        else if (apart)
            dot_each(fff->dtype, rows, xs, WALKERS, fff->width_in, dots);
        else
            dot_rows(fff->dtype, rows[0], xs, WALKERS, fff->width_in, dots);
        for (int i = 0; i < WALKERS; i++) {
            const float scale = w->scales_in ? w->scales_in[nodes[i]] : 1.0f;
            scores[level][i] = dots[i] * scale + w->biases[nodes[i]];
            nodes[i] = 2 * nodes[i] + 1 + (scores[level][i] > 0.0f); /* strictly: 0 and NaN go left */
        }
    }
    for (int i = 0; i < count; i++) {
        at[i] = nodes[i];
        for (ptrdiff_t level = first; level < end; level++)
            w->tree_scores[tokens[i] * w->stride + level] = scores[level][i];
    }
}

/* Tokens order[lo:hi], and while they walk the inputs of those that follow, up to `next`. */
static void walk_range(const walk *w, ptrdiff_t lo, ptrdiff_t hi, ptrdiff_t next, ptrdiff_t first, ptrdiff_t end) {
    const ptrdiff_t width = w->fff->width_in;
    for (ptrdiff_t slice_end; lo < hi; lo = slice_end) {
        slice_end = lo + WALK_SLICE < hi ? lo + WALK_SLICE : hi;
        plan_nothing(w->ahead);
        if (w->is_cold)
            for (ptrdiff_t i = slice_end; i < slice_end + WALK_SLICE && i < next; i++)
                plan_lines(w->ahead, w->x + w->order[i] * width, width * (ptrdiff_t)sizeof(float));
        spread_over(w->ahead, (slice_end - lo) * (end - first));
        for (ptrdiff_t i = lo; i < slice_end; i += WALKERS)
            walk_few(w, w->order + i, w->at + i, slice_end - i < WALKERS ? (int)(slice_end - i) : WALKERS, first, end);
    }
}

/* Sorts tokens order[lo:hi], which all come from node `root`, by where they stand `levels` below it; of more than
 * MOST_SORTED_LEVELS, by the first of them. They stand `deeper` levels below that. starts: where each group begins. */
static void sort_walked(const walk *w, ptrdiff_t lo, ptrdiff_t hi, ptrdiff_t root, ptrdiff_t levels,
                        ptrdiff_t *starts) {
    const ptrdiff_t sorted = levels < MOST_SORTED_LEVELS ? levels : MOST_SORTED_LEVELS, groups = (ptrdiff_t)1 << sorted;
    const ptrdiff_t deeper = levels - sorted, first = ((root + 1) << sorted) - 1;
    ptrdiff_t place[1 << MOST_SORTED_LEVELS] = {0}, sum = lo;
    memcpy(w->order_spare + lo, w->order + lo, (size_t)(hi - lo) * sizeof(int32_t));
    memcpy(w->at_spare + lo, w->at + lo, (size_t)(hi - lo) * sizeof(int32_t));
    for (ptrdiff_t i = lo; i < hi; i++)
        place[((w->at[i] + 1) >> deeper) - 1 - first]++;
    for (ptrdiff_t group = 0; group < groups; group++) {
        const ptrdiff_t count = place[group];
        starts[group] = place[group] = sum;
        sum += count;
    }
    starts[groups] = hi;
    for (ptrdiff_t i = lo; i < hi; i++) {
        const ptrdiff_t to = place[((w->at_spare[i] + 1) >> deeper) - 1 - first]++;
        w->order[to] = w->order_spare[i];
        w->at[to] = w->at_spare[i];
    }
}

/* The rows and coefficients of a token, whose leaf's child `below` is where it would go next. */
static void fill_pair(const walk *w, row_pair *pair, int t, ptrdiff_t token, int32_t below, float *coefs) {
    const ufbert_fff *fff = w->fff;
    const ptrdiff_t levels = fff->depth + 1;
    pair->y[t] = w->y + token * fff->width_out;
    for (ptrdiff_t level = 0; level < levels; level++) {
        const ptrdiff_t node = ((below + 1) >> (levels - level)) - 1;
        if (w->scales_out)
            coefs[level] *= w->scales_out[node];
        pair->coefs[level][t] = coefs[level];
        pair->rows[t][level] = w->rows_out + node * fff->stride_out;
        if (w->path)
            w->path[(token * fff->num_trees + w->tree) * levels + level] = (int32_t)node;
    }
}

/* Outputs of tokens order[lo:hi], or what this tree adds to them. */
static void write_walked(const walk *w, ptrdiff_t lo, ptrdiff_t hi) {
    const ufbert_fff *fff = w->fff;
    const ptrdiff_t levels = fff->depth + 1;
    const float *factors = w->tree + 1 == fff->num_trees ? fff->columns_out : NULL;
    const int start = w->tree == 0 ? START_AT_ZERO : START_AT_Y;
    const int past = w->stream && fff->num_trees == 1 ? PAST_THE_CACHES : THROUGH_CACHES;
    float coefs[TOKENS_TO_WRITE * (UFBERT_MAX_DEPTH + 1)];
    row_pair pair = {.count = (int)levels};
    for (ptrdiff_t count; lo < hi; lo += count) {
        count = hi - lo < TOKENS_TO_WRITE ? hi - lo : TOKENS_TO_WRITE;
        for (ptrdiff_t t = 0; t < count; t++)
            memcpy(coefs + t * levels, w->tree_scores + w->order[lo + t] * w->stride, (size_t)levels * sizeof(float));
        activate(fff->activation, coefs, count * levels);
        for (ptrdiff_t t = 0; t < count; t++) {
            fill_pair(w, &pair, (int)(t % 2), w->order[lo + t], w->at[lo + t], coefs + t * levels);
            if (t % 2) {
                pair.shared = 0;
                while (pair.shared < levels && pair.rows[0][pair.shared] == pair.rows[1][pair.shared])
                    pair.shared++;
                fetch_ahead(w->ahead, 2 * levels);
                mix_pair(fff->dtype, start, past, &pair, fff->width_out, factors);
            } else if (t + 1 == count) {
                for (ptrdiff_t block = 0; block * UFBERT_BLOCK < fff->width_out;)
                    block = mix_columns(fff->dtype, start, past, pair.y[0], pair.rows[0], coefs + t * levels, levels,
                                        block, fff->width_out, factors);
            }
        }
    }
}

/* Levels that tokens walk in their own order: all, if the rows stay in cache. */
static ptrdiff_t levels_in_order(const ufbert_fff *fff, ptrdiff_t tokens) {
    ptrdiff_t levels = 1;
    while (levels <= fff->depth && (((ptrdiff_t)2 << levels) - 1) * fff->stride_in <= WALK_CACHE)
        levels++;
    if (levels > fff->depth)
        return levels;
    while (levels > 0 && (levels > MOST_SORTED_LEVELS || tokens >> levels < LEAST_IN_SUBTREE))
        levels--;
    return levels > 0 ? levels : fff->depth + 1;
}

static void walk_tree(walk *w, ptrdiff_t tokens) {
    const ufbert_fff *fff = w->fff;
    const ptrdiff_t levels = fff->depth + 1, top = levels_in_order(fff, tokens);
    ptrdiff_t starts[(1 << MOST_SORTED_LEVELS) + 1], leaves[(1 << MOST_SORTED_LEVELS) + 1];
    for (ptrdiff_t i = 0; i < tokens; i++) {
        w->order[i] = (int32_t)i;
        w->at[i] = 0;
    }
    walk_range(w, 0, tokens, tokens, 0, top);
    sort_walked(w, 0, tokens, 0, top, starts);
    plan_nothing(w->ahead);
    if (top == levels) {
        write_walked(w, 0, tokens);
        return;
    }
    for (ptrdiff_t i = 0; i < (ptrdiff_t)1 << top; i++) {
        walk_range(w, starts[i], starts[i + 1], tokens, top, levels);
        sort_walked(w, starts[i], starts[i + 1], ((ptrdiff_t)1 << top) - 1 + i, levels - top, leaves);
        plan_nothing(w->ahead);
        write_walked(w, starts[i], starts[i + 1]);
    }
}

static ptrdiff_t tokens_to_walk(const ufbert_fff *fff, ptrdiff_t tokens) {
    ptrdiff_t most = ufbert_tile_tokens(fff);
    if (fff->num_trees > 1) {
        const ptrdiff_t in_cache = WALK_TILE_FLOATS / (fff->width_in + fff->width_out);
        most = in_cache < WALK_LEAST ? WALK_LEAST : in_cache < most ? in_cache : most;
    }
    return tokens < most ? tokens : most;
}

static void walk_all(const ufbert_fff *fff, const float *x, ptrdiff_t tokens, float *y, int32_t *path, float *scores,
                     int stream, void *scratch) {
    const ptrdiff_t tile = tokens_to_walk(fff, tokens), levels = fff->depth + 1, visits = fff->num_trees * levels;
    fetch_plan ahead;
    walk w = {.fff = fff, .stride = scores ? visits : levels, .stream = stream, .ahead = &ahead};
    const uintptr_t start = (uintptr_t)scratch;
    if (((uintptr_t)x | (uintptr_t)fff->width_in * sizeof *x) % sizeof(vec))
        w.copies = (float *)scratch + (UFBERT_CACHE_LINE - start % UFBERT_CACHE_LINE) / sizeof(float);
    w.order = (int32_t *)scratch + WALKERS * ufbert_copy_stride(fff) + UFBERT_CACHE_LINE / (ptrdiff_t)sizeof(float);
    w.at = w.order + tile;
    w.order_spare = w.at + tile;
    w.at_spare = w.order_spare + tile;
    for (ptrdiff_t done = 0, now; done < tokens; done += now) {
        now = tokens - done < tile ? tokens - done : tile;
        w.x = x + done * fff->width_in;
        w.y = y + done * fff->width_out;
        w.path = path ? path + done * visits : NULL;
        w.scores = scores ? scores + done * visits : (float *)(w.at_spare + tile);
        for (ptrdiff_t tree = 0; tree < fff->num_trees; tree++) {
            w.is_cold = tree == 0 || fff->num_trees == 1;
            begin_tree(&w, tree);
            walk_tree(&w, now);
        }
    }
    if (stream)
        v_stream_end();
}

#endif
