/* The kernels under pthreads, for the sanitizers.
 *
 * ThreadSanitizer does not understand libgomp's barriers and would report every parallel region. The kernels do not
 * use OpenMP, though: only the loops around them do. So this driver runs the same C functions with the same division
 * of work, with pthreads in OpenMP's place, and compares with one thread, bit for bit. */
#define _POSIX_C_SOURCE 200809L /* pthread barriers */
#include "dense.h"
#include "kernels.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, TOKENS = 333, TREES = 2, DEPTH = 5, NODES = (2 << DEPTH) - 1, WIDTH = 77, OUT = 45 };
enum { VISITS = TREES * (DEPTH + 1), SHARE = (TOKENS + THREADS - 1) / THREADS };
enum { TOP = 3, SUBTREES = 1 << TOP, ABOVE = (WIDTH + OUT + 1 + 15) / 16 * 16 };

static float x[TOKENS * WIDTH], dy[TOKENS * OUT], w_in[TREES * NODES * WIDTH], b_in[TREES * NODES];
static float w_out[TREES * NODES * OUT], out_squares[TREES * NODES], switch_costs[TOKENS];
static int32_t tried[TOKENS * TREES];

typedef struct {
    float y[TOKENS * OUT], scores[TOKENS * VISITS], above[TREES * SUBTREES * TOP * ABOVE];
    float dx[TOKENS * WIDTH], dw_in[TREES * NODES * WIDTH], db_in[TREES * NODES], dw_out[TREES * NODES * OUT];
    int32_t path[TOKENS * VISITS];
} results;

typedef struct {
    const ufbert_kernels *kernels;
    const ufbert_fff *layer;
    results *out;
    int index, threads, phase;
    pthread_t id;
} job;

static void fill(float *values, size_t count, float scale) {
    static uint32_t state = 12345;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = scale * ((float)(state >> 8) / (1 << 23) - 1.0f);
    }
}

/* One tree, whose subtrees the threads share. */
static void run_backward(const job *j, int tree) {
    results *r = j->out;
    ufbert_backward pass = {j->layer, dy, x, r->path, r->scores, r->dx, r->dw_in, r->db_in, r->dw_out,
                            tried, out_squares, switch_costs};
    for (int subtree = j->index; subtree < SUBTREES; subtree += j->threads) {
        int32_t tokens[TOKENS];
        ptrdiff_t count = 0;
        for (int leaf = subtree << (DEPTH - TOP); leaf < (subtree + 1) << (DEPTH - TOP); leaf++)
            for (int token = 0; token < TOKENS; token++)
                if (r->path[token * VISITS + tree * (DEPTH + 1) + DEPTH] == NODES / 2 + leaf)
                    tokens[count++] = token;
        j->kernels->backward_tokens(&pass, tree, TOP, tokens, count, r->above + (tree * SUBTREES + subtree) * TOP * ABOVE);
    }
}

static void *run(void *argument) {
    const job *j = argument;
    const int share = (TOKENS + j->threads - 1) / j->threads, first = j->index * share;
    if (j->phase > 0) {
        run_backward(j, j->phase - 1);
    } else if (first < TOKENS) {
        const int tokens = first + share < TOKENS ? share : TOKENS - first;
        void *scratch = malloc(ufbert_scratch_bytes(j->layer, tokens));
        j->kernels->fff_forward(j->layer, x + first * WIDTH, tokens, j->out->y + first * OUT,
                                j->out->path + first * VISITS, j->out->scores + first * VISITS, 0, scratch);
        free(scratch);
    }
    return NULL;
}

static results *run_all(const ufbert_kernels *kernels, const ufbert_fff *layer, int threads, int last_phase) {
    results *out = calloc(1, sizeof *out);
    job jobs[THREADS];
    for (int phase = 0; phase <= last_phase; phase++) {
        for (int i = 0; i < threads; i++) {
            jobs[i] = (job){kernels, layer, out, i, threads, phase, 0};
            pthread_create(&jobs[i].id, NULL, run, &jobs[i]);
        }
        for (int i = 0; i < threads; i++)
            pthread_join(jobs[i].id, NULL);
    }
    return out;
}

static int compare(const ufbert_kernels *kernels, const ufbert_fff *layer, int last_phase) {
    results *one = run_all(kernels, layer, 1, last_phase), *many = run_all(kernels, layer, THREADS, last_phase);
    const int differ = memcmp(one, many, sizeof *one) != 0;
    printf("%-12s %-8s %s\n", kernels->name, layer->bfloat16 ? "bfloat16" : "float32", differ ? "DIFFERS" : "the same bits");
    free(one);
    free(many);
    return differ;
}

/* One encoder layer by a team. */
enum { HIDDEN = 48, HEADS = 3, INNER = 80, TEXTS = 9 };
static pthread_barrier_t meeting;
static int meeting_of;
void driver_barrier(void);
void driver_barrier(void) {
    if (meeting_of > 1)
        pthread_barrier_wait(&meeting);
}

typedef struct {
    const ufbert_dense *kernels;
    const ufbert_layer *layer;
    ufbert_pass *pass;
    int member, members;
    pthread_t id;
} member_job;

static void *run_member(void *argument) {
    const member_job *j = argument;
    j->kernels->encoder_layer(j->layer, j->pass, j->member, j->members);
    return NULL;
}

static void run_team(const ufbert_dense *kernels, const ufbert_layer *layer, ufbert_pass *pass, int members) {
    member_job jobs[THREADS];
    void *memory = ufbert_begin_layer(layer, pass, members);
    pthread_barrier_init(&meeting, NULL, (unsigned)members);
    meeting_of = members;
    for (int i = 0; i < members; i++) {
        jobs[i] = (member_job){kernels, layer, pass, i, members, 0};
        pthread_create(&jobs[i].id, NULL, run_member, &jobs[i]);
    }
    for (int i = 0; i < members; i++)
        pthread_join(jobs[i].id, NULL);
    pthread_barrier_destroy(&meeting);
    free(memory);
}

static ufbert_linear packed_linear(ptrdiff_t in, ptrdiff_t out, int activation, int bits) {
    const ptrdiff_t columns = (out + UFBERT_PANEL - 1) / UFBERT_PANEL * UFBERT_PANEL;
    float *weight = malloc((size_t)(in * out) * sizeof *weight), *rows = calloc((size_t)columns * 3, sizeof *rows);
    void *packed = calloc((size_t)(columns * (in + 4)), sizeof(float));
    ufbert_linear layer = {in, out, activation, rows, NULL, NULL, NULL, rows + columns, rows + 2 * columns};
    fill(weight, (size_t)(in * out), 0.3f);
    fill(rows, (size_t)out, 0.1f);
    if (bits == 8) {
        layer.bytes = packed;
        ufbert_pack_bytes(&layer, weight, 1);
    } else if (bits == 16) {
        layer.halves = packed;
        ufbert_pack_halves(&layer, weight, 1);
    } else {
        layer.floats = packed;
        ufbert_pack_floats(&layer, weight, 1);
    }
    free(weight);
    return layer;
}

static void free_linear(const ufbert_linear *layer) {
    free((void *)layer->bias);
    free((void *)(layer->bytes ? (const void *)layer->bytes : layer->halves ? (const void *)layer->halves : layer->floats));
}

static int compare_layers(const char *isa, int bits, int pre) {
    static const int64_t cu_seqlens[TEXTS + 1] = {0, 40, 41, 41, 110, 130, 170, 177, 250, 300};
    static const int64_t groups[] = {0, 3, 4, 6, 9};
    static float in[300 * HIDDEN], one[300 * HIDDEN], many[300 * HIDDEN], norms[4 * HIDDEN];
    const ufbert_dense *kernels = ufbert_dense_for(isa);
    ufbert_linear qkv = packed_linear(HIDDEN, 3 * HIDDEN, UFBERT_NO_ACTIVATION, bits);
    ufbert_linear output = packed_linear(HIDDEN, HIDDEN, UFBERT_NO_ACTIVATION, bits);
    ufbert_linear dense_in = packed_linear(HIDDEN, INNER, UFBERT_GELU, bits);
    ufbert_linear dense_out = packed_linear(INNER, HIDDEN, UFBERT_NO_ACTIVATION, bits);
    int failures = 0;
    fill(in, 300 * HIDDEN, 1.0f);
    fill(norms, 4 * HIDDEN, 1.0f);
    const ufbert_layer layer = {HIDDEN, HEADS, 0.25f, pre, &qkv, &output, &dense_in, &dense_out,
                                {norms, norms + HIDDEN, 1e-5f}, {norms + 2 * HIDDEN, norms + 3 * HIDDEN, 1e-5f}, NULL};
    ufbert_pass pass = {0};
    pass.x = in, pass.cu_seqlens = cu_seqlens, pass.groups = groups;
    pass.num_texts = TEXTS, pass.num_groups = 4, pass.longest = 73, pass.largest = 130;
    pass.y = one;
    run_team(kernels, &layer, &pass, 1);
    pass.y = many;
    for (pass.by_columns = 0; pass.by_columns < 2; pass.by_columns++) {
        run_team(kernels, &layer, &pass, THREADS);
        failures += memcmp(one, many, sizeof one) != 0;
    }
    printf("%-12s layer, %d bits %s\n", isa, bits, failures ? "DIFFERS" : "the same bits");
    free_linear(&qkv), free_linear(&output), free_linear(&dense_in), free_linear(&dense_out);
    return failures;
}

int main(void) {
    enum { ROW_IN = (WIDTH + 31) / 32 * 32, ROW_OUT = (OUT + 31) / 32 * 32 };
    const ufbert_kernels *tables[8];
    const ptrdiff_t count = ufbert_supported(tables, 8);
    const size_t bytes = sizeof(uint16_t) * TREES * NODES * (ROW_IN + ROW_OUT);
    uint16_t *packed = ufbert_allocate_pages(bytes);
    int failures = 0;
    fill(x, TOKENS * WIDTH, 1.0f);
    fill(dy, TOKENS * OUT, 1.0f);
    fill(w_in, TREES * NODES * WIDTH, 0.3f);
    fill(b_in, TREES * NODES, 0.1f);
    fill(w_out, TREES * NODES * OUT, 0.3f);
    for (int i = 0; i < TREES * NODES; i++)
        for (int o = 0; o < OUT; o++)
            out_squares[i] += w_out[i * OUT + o] * w_out[i * OUT + o];
    for (int i = 0; i < TOKENS; i++)
        switch_costs[i] = 0.1f;
    for (int i = 0; i < TOKENS * TREES; i++)
        tried[i] = i * 7 % DEPTH;
    for (int node = 0; node < TREES * NODES; node++) {
        ufbert_pack_bfloat16(w_in + node * WIDTH, WIDTH, packed + node * ROW_IN);
        ufbert_pack_bfloat16(w_out + node * OUT, OUT, packed + TREES * NODES * ROW_IN + node * ROW_OUT);
    }
    for (int activation = UFBERT_GELU; activation <= UFBERT_TANH; activation++) {
        const ufbert_fff plain = {TREES, NODES, DEPTH, WIDTH, OUT, activation, 0, (const char *)w_in, b_in,
                                  (const char *)w_out, WIDTH * sizeof(float), OUT * sizeof(float)};
        const ufbert_fff half = {TREES, NODES, DEPTH, WIDTH, OUT, activation, 1, (const char *)packed, b_in,
                                 (const char *)(packed + TREES * NODES * ROW_IN), ROW_IN * 2, ROW_OUT * 2};
        for (ptrdiff_t i = 0; i < count; i++)
            failures += compare(tables[i], &plain, TREES) + compare(tables[i], &half, 0);
    }
    ufbert_free_pages(packed, bytes);
    for (ptrdiff_t i = 0; i < count; i++)
        for (int bits = 8; bits <= 32; bits *= 2)
            for (int pre = 0; pre < 2; pre++)
                failures += compare_layers(tables[i]->name, bits, pre);
    return failures != 0;
}
