/* The kernels by one thread and by several, bit for bit, for the sanitizers. */
#include "isa.h"
#include "memory.h"

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
    const ufbert_fff_kernels *kernels;
    const ufbert_fff *fff;
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
    const ufbert_backward pass = {j->fff,   dy,       x,         r->path, r->scores,   r->dx,
                                  r->dw_in, r->db_in, r->dw_out, tried,   out_squares, switch_costs};
    for (int subtree = j->index; subtree < SUBTREES; subtree += j->threads) {
        int32_t tokens[TOKENS];
        ptrdiff_t count = 0;
        for (int leaf = subtree << (DEPTH - TOP); leaf < (subtree + 1) << (DEPTH - TOP); leaf++)
            for (int token = 0; token < TOKENS; token++)
                if (r->path[token * VISITS + tree * (DEPTH + 1) + DEPTH] == NODES / 2 + leaf)
                    tokens[count++] = token;
        j->kernels->backward(&pass, tree, TOP, tokens, count, r->above + (tree * SUBTREES + subtree) * TOP * ABOVE);
    }
}

static void *run(void *argument) {
    const job *j = argument;
    const int share = (TOKENS + j->threads - 1) / j->threads, first = j->index * share;
    if (j->phase > 0) {
        run_backward(j, j->phase - 1);
    } else if (first < TOKENS) {
        const int tokens = first + share < TOKENS ? share : TOKENS - first;
        void *scratch = malloc(ufbert_fff_scratch(j->fff, tokens));
        j->kernels->forward(j->fff, x + first * WIDTH, tokens, j->out->y + first * OUT, j->out->path + first * VISITS,
                            j->out->scores + first * VISITS, 0, scratch);
        free(scratch);
    }
    return NULL;
}

static results *run_all(const ufbert_fff_kernels *kernels, const ufbert_fff *fff, int threads, int last_phase) {
    results *out = calloc(1, sizeof *out);
    job jobs[THREADS];
    for (int phase = 0; phase <= last_phase; phase++) {
        for (int i = 0; i < threads; i++) {
            jobs[i] = (job){kernels, fff, out, i, threads, phase, 0};
            pthread_create(&jobs[i].id, NULL, run, &jobs[i]);
        }
        for (int i = 0; i < threads; i++)
            pthread_join(jobs[i].id, NULL);
    }
    return out;
}

static const char *name_of(ufbert_dtype dtype) {
    return dtype == UFBERT_F32 ? "float32" : dtype == UFBERT_BF16 ? "bfloat16" : "int8";
}

static int compare(const ufbert_isa *isa, const ufbert_fff *fff, int last_phase) {
    results *one = run_all(isa->fff, fff, 1, last_phase), *many = run_all(isa->fff, fff, THREADS, last_phase);
    const int differ = memcmp(one, many, sizeof *one) != 0;
    if (differ)
        printf("%s: trees in %s differ\n", isa->name, name_of(fff->dtype));
    free(one);
    free(many);
    return differ;
}

/* One encoder layer by a team. */
enum { HIDDEN = 42, SQUARE = HIDDEN, HEADS = 3, INNER = 80, TEXTS = 9, ROWS = 300 };

static void run_team(const ufbert_isa *isa, const ufbert_encoder_layer *layer, ufbert_layer_pass *pass, int threads) {
    ufbert_run_layer(isa->dense, isa->fff, layer, pass, ufbert_run_team, threads);
}

typedef struct {
    void *weights;
    float *columns, *weight;
} linear_memory;

static ufbert_linear packed_linear(const ufbert_dense_kernels *kernels, ptrdiff_t in, ptrdiff_t out, int activation,
                                   ufbert_dtype dtype, linear_memory *memory) {
    const ufbert_layout *layout = &kernels->layout;
    const ptrdiff_t columns = ufbert_round_up(out, layout->panel);
    memory->weight = malloc((size_t)(in * out) * sizeof(float));
    memory->columns = calloc((size_t)columns * 3, sizeof(float));
    memory->weights = calloc(1, ufbert_linear_bytes(layout, in, out, dtype));
    float *scales = dtype == UFBERT_INT8 ? memory->columns + columns : NULL;
    float *sums = dtype == UFBERT_INT8 ? memory->columns + 2 * columns : NULL;
    fill(memory->weight, (size_t)(in * out), 0.3f);
    fill(memory->columns, (size_t)out, 0.1f);
    const ufbert_piece pieces[] = {{memory->weight, out / 3}, {memory->weight + out / 3 * in, out - out / 3}};
    const ufbert_stored weight = {UFBERT_STORED_F32, pieces, 2, in};
    ufbert_pack_linear(kernels, dtype, &weight, out, memory->weights, scales, sums, ufbert_run_team, THREADS);
    return (ufbert_linear){in, out, activation, dtype, memory->weights, memory->columns, scales, sums};
}

static void free_linear(linear_memory *memory) {
    free(memory->weight);
    free(memory->columns);
    free(memory->weights);
}

static float *filled(size_t count, float scale) {
    float *values = malloc(count * sizeof(float));
    fill(values, count, scale);
    return values;
}

/* A layer with trees, or without: by groups and by columns, by a team and by one thread. `all`: with a bias by distance,
 * rotations, masked keys, and gates where there are no trees; their memory has no byte more than it must. */
static int compare_layers(const ufbert_isa *isa, ufbert_dtype dtype, int pre, const ufbert_fff *trees, int all) {
    static const int64_t cu_seqlens[TEXTS + 1] = {0, 40, 41, 41, 110, 130, 170, 177, 250, ROWS};
    static const int64_t groups[] = {0, 3, 4, 6, 9};
    static float in[ROWS * HIDDEN], one[ROWS * HIDDEN], many[ROWS * HIDDEN], norms[4 * HIDDEN];
    linear_memory memory[4];
    const ufbert_linear qkv = packed_linear(isa->dense, HIDDEN, 3 * HIDDEN, UFBERT_NO_ACTIVATION, dtype, &memory[0]);
    const ufbert_linear output = packed_linear(isa->dense, HIDDEN, HIDDEN, UFBERT_NO_ACTIVATION, dtype, &memory[1]);
    const ufbert_linear dense_in = packed_linear(isa->dense, HIDDEN, all ? 2 * INNER : INNER,
                                                 all ? UFBERT_NO_ACTIVATION : UFBERT_GELU, dtype, &memory[2]);
    const ufbert_linear dense_out = packed_linear(isa->dense, INNER, HIDDEN, UFBERT_NO_ACTIVATION, dtype, &memory[3]);
    enum { LONGEST = 73, STRIDE = 2 * LONGEST - 1 + UFBERT_BEHIND_DISTANCES };
    float *biases = filled(HEADS * STRIDE, 1.0f), *rotations = filled(LONGEST * (HIDDEN / HEADS), 1.0f);
    uint8_t attended[ROWS];
    int failures = 0;
    for (int i = 0; i < ROWS; i++)
        attended[i] = i % 7 != 3;
    fill(in, ROWS * HIDDEN, 1.0f);
    fill(norms, 4 * HIDDEN, 1.0f);
    const ufbert_encoder_layer layer = {.width = HIDDEN,
                                        .num_heads = HEADS,
                                        .scale = 0.25f,
                                        .pre = pre,
                                        .query_key_value = &qkv,
                                        .output = &output,
                                        .dense_in = trees ? NULL : &dense_in,
                                        .dense_out = trees ? NULL : &dense_out,
                                        .trees = trees,
                                        .tree_bias = norms,
                                        .window = pre ? 20 : 0,
                                        .distance_bias = {all ? biases : NULL, LONGEST - 1, STRIDE},
                                        .rotations = all ? rotations : NULL,
                                        .gated = all && !trees,
                                        .gate_activation = UFBERT_SILU,
                                        .norm1 = {norms, norms + HIDDEN, 1e-5f},
                                        .norm2 = {norms + 2 * HIDDEN, norms + 3 * HIDDEN, 1e-5f}};
    ufbert_layer_pass pass = {.x = in,
                              .y = one,
                              .attended = all ? attended : NULL,
                              .cu_seqlens = cu_seqlens,
                              .groups = groups,
                              .num_texts = TEXTS,
                              .num_groups = 4,
                              .longest = LONGEST,
                              .largest = 130};
    run_team(isa, &layer, &pass, 1);
    pass.y = many;
    for (pass.by_columns = 0; pass.by_columns < 2; pass.by_columns++) {
        run_team(isa, &layer, &pass, THREADS);
        failures += memcmp(one, many, sizeof one) != 0;
    }
    if (failures)
        printf("%s: a layer%s in %s differs\n", isa->name, trees ? " with trees" : "", name_of(dtype));
    for (int i = 0; i < 4; i++)
        free_linear(&memory[i]);
    free(biases);
    free(rotations);
    return failures;
}

/* Packs the first columns of the trees above. */
static ufbert_fff packed_fff(ufbert_dtype dtype, int width_in, int width_out, int activation, char **memory) {
    const ptrdiff_t in = ufbert_row_stride(width_in, dtype), out = ufbert_row_stride(width_out, dtype);
    const ptrdiff_t nodes = TREES * NODES;
    char *rows = ufbert_allocate_pages((size_t)(nodes * (in + out)) + 2 * (size_t)nodes * sizeof(float));
    float *scales = (float *)(rows + nodes * (in + out));
    for (ptrdiff_t node = 0; node < nodes; node++) {
        char *row_in = rows + node * in, *row_out = rows + nodes * in + node * out;
        const float *from_in = w_in + node * WIDTH, *from_out = w_out + node * OUT;
        if (dtype == UFBERT_INT8) {
            scales[node] = ufbert_pack_int8_row(from_in, width_in, (int8_t *)row_in);
            scales[nodes + node] = ufbert_pack_int8_row(from_out, width_out, (int8_t *)row_out);
        } else if (dtype == UFBERT_BF16) {
            ufbert_pack_bf16_row(from_in, width_in, (uint16_t *)row_in);
            ufbert_pack_bf16_row(from_out, width_out, (uint16_t *)row_out);
        } else {
            memcpy(row_in, from_in, (size_t)width_in * sizeof(float));
            memcpy(row_out, from_out, (size_t)width_out * sizeof(float));
        }
    }
    *memory = rows;
    return (ufbert_fff){TREES,
                        NODES,
                        DEPTH,
                        width_in,
                        width_out,
                        activation,
                        dtype,
                        rows,
                        b_in,
                        rows + nodes * in,
                        in,
                        out,
                        dtype == UFBERT_INT8 ? scales : NULL,
                        dtype == UFBERT_INT8 ? scales + nodes : NULL,
                        dtype == UFBERT_INT8 ? b_in : NULL};
}

static int check(const ufbert_isa *isa) {
    int failures = 0;
    for (int activation = UFBERT_GELU; activation <= UFBERT_TANH; activation++) {
        const ufbert_fff plain = {TREES,
                                  NODES,
                                  DEPTH,
                                  WIDTH,
                                  OUT,
                                  activation,
                                  UFBERT_F32,
                                  (const char *)w_in,
                                  b_in,
                                  (const char *)w_out,
                                  WIDTH * sizeof(float),
                                  OUT * sizeof(float),
                                  NULL,
                                  NULL,
                                  NULL};
        failures += compare(isa, &plain, TREES);
        for (ufbert_dtype dtype = UFBERT_F32; dtype <= UFBERT_INT8; dtype++) {
            char *memory;
            const ufbert_fff packed = packed_fff(dtype, WIDTH, OUT, activation, &memory);
            failures += compare(isa, &packed, 0);
            ufbert_free_pages(memory);
        }
    }
    for (ufbert_dtype dtype = UFBERT_F32; dtype <= UFBERT_INT8; dtype++)
        for (int pre = 0; pre < 2; pre++) {
            char *memory;
            const ufbert_fff trees = packed_fff(dtype, SQUARE, SQUARE, UFBERT_GELU, &memory);
            for (int all = 0; all < 2; all++)
                failures += compare_layers(isa, dtype, pre, NULL, all) + compare_layers(isa, dtype, pre, &trees, all);
            ufbert_free_pages(memory);
        }
    printf("%s: %s\n", isa->name, failures ? "DIFFERS" : "the same bits by one thread and by several");
    return failures;
}

/* Callers that share the process's threads, with sleep and without: each has its own sum of what its shares add. */
enum { CALLERS = 6, CALLS = 300, SHARES = 9 };

typedef struct {
    ptrdiff_t sums[SHARES];
    ufbert_step steps[2];
    ptrdiff_t total;
    int failed;
} counting;

static void count_steps(void *argument, int member) {
    counting *all = argument;
    (void)member;
    for (ptrdiff_t share = ufbert_take(&all->steps[0]); share < SHARES; share = ufbert_take(&all->steps[0])) {
        all->sums[share] += share;
        ufbert_finish(&all->steps[0], SHARES);
    }
    ufbert_await(&all->steps[0], SHARES);
    if (ufbert_take(&all->steps[1]) == 0)
        for (int share = 0; share < SHARES; share++)
            all->total += all->sums[share];
}

static void *call_often(void *argument) {
    counting *all = argument;
    for (int call = 0; call < CALLS; call++) {
        *all = (counting){.failed = all->failed};
        ufbert_run_team(1 + call % THREADS, count_steps, all);
        all->failed += all->total != SHARES * (SHARES - 1) / 2;
    }
    return NULL;
}

static int check_callers(void) {
    static counting all[CALLERS];
    pthread_t callers[CALLERS];
    int failures = 0;
    for (long spin = 0; spin <= 100000; spin += 100000) {
        ufbert_set_spinning(spin, spin);
        for (int i = 0; i < CALLERS; i++)
            pthread_create(&callers[i], NULL, call_often, &all[i]);
        for (int i = 0; i < CALLERS; i++) {
            pthread_join(callers[i], NULL);
            failures += all[i].failed;
        }
    }
    printf("teams of %d callers: %s\n", CALLERS, failures ? "WRONG" : "every share once");
    return failures;
}

int main(void) {
    int failures = check_callers();
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
    for (ptrdiff_t i = 0; ufbert_isa_at(i); i++)
        if (ufbert_isa_at(i)->is_supported())
            failures += check(ufbert_isa_at(i));
        else
            printf("%s: not on this machine\n", ufbert_isa_at(i)->name);
    return failures != 0;
}
