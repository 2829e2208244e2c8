/* Random layers on every instruction set against plain loops in double, which say what ufbert/reference.py says.
 *
 *     layers SEED FIRST COUNT THREADS
 *
 * Threads compute cases FIRST to FIRST + COUNT - 1 side by side. All memory ends at a page that must not be touched, or
 * under AddressSanitizer at its own fence. Prints each fault with its case; exits with 1 if there is one. */
#include "isa.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define FENCED 1
#else
#define FENCED 0
#endif

enum { MOST_ISAS = 16, MOST_PIECES = 24, LANES = 4, SLACK = 4 };
#define UNIT 5.9604644775390625e-8 /* the largest relative error of one rounding */

typedef struct {
    uint64_t state;
    long number;
    char about[160];
    struct {
        char *start;
        size_t room;
    } pieces[MOST_PIECES];
    int used;
    long faults;
} lab;

static const ufbert_isa *isas[MOST_ISAS];
static int num_isas;

static uint64_t draw(lab *l) { /* splitmix64 */
    uint64_t z = (l->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int below(lab *l, int n) { return (int)(draw(l) % (uint64_t)n); }

static double uniform(lab *l) { return (double)(draw(l) >> 11) / 4503599627370496.0 - 1.0; }

/* Zeroed bytes that end where memory ends, or up to `align` - 1 bytes before; they last until the case is over. */
static void *piece(lab *l, size_t bytes, size_t align) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (bytes + align - 1) / align * align;
    const int i = l->used++;
    if (i >= MOST_PIECES)
        abort();
    if (FENCED) {
        if (posix_memalign((void **)&l->pieces[i].start, 64, whole ? whole : 1))
            abort();
        memset(l->pieces[i].start, 0, whole);
        return l->pieces[i].start;
    }
    if (l->pieces[i].room < whole || !l->pieces[i].start) {
        if (l->pieces[i].start)
            munmap(l->pieces[i].start, l->pieces[i].room + page);
        const size_t room = (2 * whole + page) / page * page;
        char *start = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (start == MAP_FAILED || mprotect(start + room, page, PROT_NONE))
            abort();
        l->pieces[i].start = start;
        l->pieces[i].room = room;
    }
    char *start = l->pieces[i].start + l->pieces[i].room - whole;
    memset(start, 0, whole);
    return start;
}

static void release(lab *l) {
    for (int i = 0; FENCED && i < l->used; i++) {
        free(l->pieces[i].start);
        l->pieces[i].start = NULL;
    }
    l->used = 0;
}

static void fault(lab *l, const char *what, double expected, double found) {
    l->faults++;
    printf("case %ld: %s: %s: expected %.9g, found %.9g\n", l->number, l->about, what, expected, found);
}

static int some_width(lab *l) {
    static const int edges[] = {1,  2,  3,  4,  7,  8,  9,  12, 15, 16, 17,  31,
                                32, 33, 47, 48, 49, 63, 64, 65, 96, 97, 129, 384};
    const int many = (int)(sizeof edges / sizeof *edges);
    return below(l, 4) ? edges[below(l, below(l, 3) ? many / 2 : many)] : 1 + below(l, 40);
}

static int some_tokens(lab *l) {
    return below(l, 40) == 0 ? 1 + below(l, 120) : below(l, 3) ? below(l, 7) : below(l, 20);
}

enum { NORMAL, INTEGERS, ZEROS, DENORMAL, LARGE, SAME, NONFINITE, TINY, KINDS };

static float *filled(lab *l, int kind, ptrdiff_t rows, ptrdiff_t width, double scale) {
    float *values = piece(l, (size_t)(rows * width) * sizeof(float), sizeof(float));
    for (ptrdiff_t i = 0; i < rows * width; i++)
        values[i] = (float)(kind == INTEGERS ? below(l, 5) - 2 : scale * (uniform(l) + uniform(l)));
    return values;
}

static float *inputs(lab *l, int kind, ptrdiff_t rows, ptrdiff_t width) {
    float *x = filled(l, kind, rows, width, kind == LARGE ? 1e15 : kind == TINY ? 1e-36 : 1.0);
    for (ptrdiff_t i = 0; i < rows * width; i++) {
        if (kind == ZEROS)
            x[i] = 0.0f;
        else if (kind == SAME)
            x[i] = x[i % width];
        else if (kind == NONFINITE && below(l, (int)width + 1) == 0)
            x[i] = below(l, 2) ? NAN : below(l, 2) ? INFINITY : -INFINITY;
    }
    return x;
}

static float widened(uint16_t half) {
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* A value as int8 times its row's scale: linear layers multiply with the factor, trees divide by the scale. */
static float in_8_bits(float value, float scale, float factor, int is_tree) {
    const float steps = !is_tree ? value * factor : scale > 0.0f ? value / scale : 0.0f;
    return scale * (float)ufbert_nearest(steps > 127.0f ? 127.0f : steps < -127.0f ? -127.0f : steps);
}

/* What rows become in a dtype, as float32. */
static float *rounded(lab *l, ufbert_dtype dtype, const float *rows, ptrdiff_t count, ptrdiff_t width, int is_tree) {
    float *result = piece(l, (size_t)(count * width) * sizeof(float), sizeof(float));
    for (ptrdiff_t row = 0; row < count; row++) {
        const float *from = rows + row * width;
        float factor = 0.0f, scale = dtype == UFBERT_INT8 ? ufbert_int8_scale(from, width, &factor) : 0.0f;
        for (ptrdiff_t i = 0; i < width; i++)
            result[row * width + i] = dtype == UFBERT_F32    ? from[i]
                                      : dtype == UFBERT_BF16 ? widened(ufbert_bf16(from[i]))
                                                             : in_8_bits(from[i], scale, factor, is_tree);
    }
    return result;
}

static double activated(int activation, double x) {
    switch (activation) {
    case UFBERT_GELU: return isinf(x) ? (x > 0 ? x : 0.0) : 0.5 * x * (1.0 + erf(x * 0.70710678118654752440));
    case UFBERT_RELU: return isnan(x) || x > 0 ? x : 0.0;
    case UFBERT_SILU: return isinf(x) ? (x > 0 ? x : 0.0) : x / (1.0 + exp(-x));
    case UFBERT_TANH: return tanh(x);
    default: return x;
    }
}

/* y against what it should be: NaN where that is NaN; beyond float32 anything may come out. */
static void compare(lab *l, const char *what, double expected, double error, double found) {
    const int comparable = isfinite(error) && fabs(expected) + error < 3e38;
    if ((comparable && !(fabs(found - expected) <= error)) || (isnan(expected) && !isnan(found)))
        fault(l, what, expected, found);
}

static void check_tree(lab *l, const ufbert_fff *f, const float *x, const float *w_in, const float *w_out,
                       const int32_t *path, ptrdiff_t tree, double *total, double *error) {
    const ptrdiff_t levels = f->depth + 1, visits = f->num_trees * levels;
    if (path[0] != 0)
        fault(l, "the root", 0, path[0]);
    for (ptrdiff_t level = 0; level < levels; level++) {
        const ptrdiff_t node = path[level], row = tree * f->num_nodes + node;
        double score = f->b_in[row], terms = fabs(score);
        for (ptrdiff_t i = 0; i < f->width_in; i++) {
            const double term = (double)x[i] * w_in[row * f->width_in + i];
            score += term;
            terms += fabs(term);
        }
        const double margin = SLACK * ((double)f->width_in / LANES + 8) * UNIT * terms + 1e-37;
        if (level < f->depth) {
            const ptrdiff_t turn = path[level + 1] - (2 * node + 1);
            const int undecided = fabs(score) <= margin || (isfinite(score) && margin > 1e30) || isnan(margin);
            if ((turn != 0 && turn != 1) || (turn != (score > 0) && (!undecided || isnan(score)))) {
                fault(l, "the other child", score, (double)turn);
                return;
            }
        }
        const double value = activated(f->activation, score);
        const double value_error = 1.2 * margin + SLACK * 2 * UNIT * fabs(score);
        for (ptrdiff_t o = 0; o < f->width_out; o++) {
            const double weight = w_out[row * f->width_out + o], added = value * weight;
            total[o] += added;
            error[o] += value_error * fabs(weight) + (SLACK + (double)visits) * UNIT * fabs(added);
        }
    }
}

static void one_thread(int threads, ufbert_work *work, void *argument) {
    (void)threads;
    work(argument, 0);
}

static char *packed(lab *l, ufbert_dtype dtype, const float *rows, ptrdiff_t count, ptrdiff_t width, float *scales) {
    const ptrdiff_t stride = ufbert_row_stride(width, dtype);
    char *memory = piece(l, (size_t)(count * stride), UFBERT_CACHE_LINE);
    const ufbert_node_rows stored = {UFBERT_STORED_F32, rows, count, width, 0};
    ufbert_pack_rows(dtype, &stored, memory, stride, scales, one_thread, 1);
    return memory;
}

static void check_trees(lab *l, const ufbert_isa *isa, int kind) {
    ufbert_fff f = {.num_trees = 1 + below(l, 3), .depth = below(l, 5), .activation = below(l, 4)};
    f.width_in = some_width(l), f.width_out = some_width(l), f.num_nodes = ((ptrdiff_t)2 << f.depth) - 1;
    const ptrdiff_t tokens = some_tokens(l), rows = f.num_trees * f.num_nodes, visits = f.num_trees * (f.depth + 1);
    const int is_packed = below(l, 4) > 0;
    f.dtype = is_packed ? (ufbert_dtype)below(l, 3) : UFBERT_F32;
    snprintf(l->about, sizeof l->about, "%s: trees %tdx%td, %td tokens, %td -> %td, dtype %d, kind %d", isa->name,
             f.num_trees, f.depth, tokens, f.width_in, f.width_out, f.dtype, kind);
    const double scale = kind == DENORMAL ? 1e-39 : 1.0 / sqrt((double)f.width_in);
    float *w_in = filled(l, kind, rows, f.width_in, scale), *w_out = filled(l, kind, rows, f.width_out, 1.0);
    float *b_in = filled(l, kind, rows, 1, kind == ZEROS ? 0.0 : kind == DENORMAL ? 1e-39 : 1.0);
    f.b_in = b_in;
    f.w_in = (char *)w_in, f.stride_in = f.width_in * (ptrdiff_t)sizeof(float);
    f.w_out = (char *)w_out, f.stride_out = f.width_out * (ptrdiff_t)sizeof(float);
    if (is_packed) {
        float *scales_in = piece(l, (size_t)rows * sizeof(float), sizeof(float));
        float *scales_out = piece(l, (size_t)rows * sizeof(float), sizeof(float));
        f.w_in = packed(l, f.dtype, w_in, rows, f.width_in, scales_in);
        f.w_out = packed(l, f.dtype, w_out, rows, f.width_out, scales_out);
        f.stride_in = ufbert_row_stride(f.width_in, f.dtype), f.stride_out = ufbert_row_stride(f.width_out, f.dtype);
        if (f.dtype == UFBERT_INT8)
            f.scales_in = scales_in, f.scales_out = scales_out;
    }
    w_in = rounded(l, f.dtype, w_in, rows, f.width_in, 1), w_out = rounded(l, f.dtype, w_out, rows, f.width_out, 1);
    if (f.dtype == UFBERT_INT8 && below(l, 2)) {
        float *columns = piece(l, (size_t)f.width_out * sizeof(float), sizeof(float));
        for (ptrdiff_t o = 0; o < f.width_out; o++)
            columns[o] = (float)(1.5 + uniform(l));
        for (ptrdiff_t i = 0; i < rows * f.width_out; i++)
            w_out[i] *= columns[i % f.width_out];
        f.columns_out = columns;
    }
    const float *x = inputs(l, kind, tokens, f.width_in);
    float *y = piece(l, (size_t)(tokens * f.width_out) * sizeof(float), sizeof(float));
    int32_t *path = piece(l, (size_t)(tokens * visits) * sizeof(int32_t), sizeof(int32_t));
    float *scores = below(l, 2) ? piece(l, (size_t)(tokens * visits) * sizeof(float), sizeof(float)) : NULL;
    double *total = piece(l, (size_t)f.width_out * 2 * sizeof(double), sizeof(double)), *error = total + f.width_out;
    isa->fff->forward(&f, x, tokens, y, path, scores, 0, piece(l, ufbert_fff_scratch(&f, tokens), UFBERT_CACHE_LINE));
    for (ptrdiff_t token = 0; token < tokens && l->faults < 20; token++) {
        for (ptrdiff_t o = 0; o < f.width_out; o++)
            total[o] = 0.0, error[o] = 1e-37;
        for (ptrdiff_t tree = 0; tree < f.num_trees; tree++)
            check_tree(l, &f, x + token * f.width_in, w_in, w_out, path + token * visits + tree * (f.depth + 1), tree,
                       total, error);
        for (ptrdiff_t o = 0; o < f.width_out; o++)
            compare(l, "y", total[o], error[o], y[token * f.width_out + o]);
    }
}

static void check_linear(lab *l, const ufbert_isa *isa, int kind) {
    const ufbert_layout *layout = &isa->dense->layout;
    const ptrdiff_t in = some_width(l), out = some_width(l), rows = some_tokens(l);
    const ptrdiff_t columns = ufbert_round_up(out, layout->panel);
    const ufbert_dtype dtype = (ufbert_dtype)below(l, 3);
    const int activation = below(l, 2) ? UFBERT_NO_ACTIVATION : below(l, 4);
    snprintf(l->about, sizeof l->about, "%s: linear, %td rows, %td -> %td, dtype %d, activation %d, kind %d", isa->name,
             rows, in, out, dtype, activation, kind);
    const float *weight = filled(l, kind, out, in, kind == DENORMAL ? 1e-39 : 1.0 / sqrt((double)in));
    float *bias = filled(l, kind, 3, columns, kind == DENORMAL ? 1e-39 : 1.0);
    memset(bias + columns, 0, (size_t)(2 * columns) * sizeof(float));
    float *scales = dtype == UFBERT_INT8 ? bias + columns : NULL,
          *sums = dtype == UFBERT_INT8 ? bias + 2 * columns : NULL;
    void *memory = piece(l, ufbert_linear_bytes(layout, in, out, dtype), UFBERT_CACHE_LINE);
    const ufbert_piece pieces[] = {{weight, out}};
    const ufbert_stored stored = {UFBERT_STORED_F32, pieces, 1, in};
    ufbert_pack_linear(isa->dense, dtype, &stored, out, memory, scales, sums, one_thread, 1);
    const ufbert_linear linear = {in, out, activation, dtype, memory, bias, scales, sums};
    const float *w = rounded(l, dtype, weight, out, in, 0), *x = inputs(l, kind, rows, in);
    const float *residual = below(l, 2) ? filled(l, kind, rows, out, 1.0) : NULL;
    float *y = piece(l, (size_t)(rows * out) * sizeof(float), sizeof(float));
    const ptrdiff_t panels = columns / layout->panel, middle = below(l, (int)panels + 1);
    void *scratch = piece(l, ufbert_linear_scratch(&linear), UFBERT_CACHE_LINE);
    isa->dense->linear(&linear, x, rows, residual, y, middle, panels, scratch);
    isa->dense->linear(&linear, x, rows, residual, y, 0, middle, scratch);
    for (ptrdiff_t row = 0; row < rows && l->faults < 20; row++) {
        double largest = 0.0;
        for (ptrdiff_t i = 0; i < in; i++)
            largest = isnan(x[row * in + i]) ? NAN : fmax(largest, fabs((double)x[row * in + i]));
        for (ptrdiff_t o = 0; o < out; o++) {
            double score = bias[o], terms = fabs(score), sizes = 0.0;
            for (ptrdiff_t i = 0; i < in; i++) {
                const double term = (double)x[row * in + i] * w[o * in + i];
                score += term;
                terms += fabs(term);
                sizes += fabs((double)w[o * in + i]);
            }
            double error = SLACK * ((double)in + 8) * UNIT * terms + 1e-36;
            if (dtype == UFBERT_BF16) /* x is rounded too, on some instruction sets */
                error += terms / 256;
            if (dtype == UFBERT_INT8) /* x is rounded to 8 bits of its range, which is up to twice its largest size */
                error += largest / 127 * sizes * 1.01 + 1e-30;
            const double value = activated(activation, score) + (residual ? residual[row * out + o] : 0.0);
            error = 1.2 * error + SLACK * 2 * UNIT * (fabs(score) + fabs(value));
            compare(l, "y", value, error, y[row * out + o]);
        }
    }
}

static void check_norm(lab *l, const ufbert_isa *isa, int kind) {
    const ptrdiff_t width = some_width(l), rows = some_tokens(l);
    snprintf(l->about, sizeof l->about, "%s: norm, %td rows of %td, kind %d", isa->name, rows, width, kind);
    const float *weight = filled(l, NORMAL, 1, width, 1.0), *bias = filled(l, NORMAL, 1, width, 1.0);
    const float *x = inputs(l, kind == LARGE ? INTEGERS : kind, rows, width);
    const ufbert_norm norm = {weight, bias, 1e-5f};
    float *y = piece(l, (size_t)(rows * width) * sizeof(float), sizeof(float));
    isa->dense->layer_norm(&norm, x, rows, width, y);
    for (ptrdiff_t row = 0; row < rows && l->faults < 20; row++) {
        double mean = 0.0, variance = 0.0;
        for (ptrdiff_t i = 0; i < width; i++)
            mean += (double)x[row * width + i] / (double)width;
        for (ptrdiff_t i = 0; i < width; i++)
            variance += (x[row * width + i] - mean) * (x[row * width + i] - mean) / (double)width;
        for (ptrdiff_t i = 0; i < width; i++) {
            const double unit = (x[row * width + i] - mean) / sqrt(variance + 1e-5);
            const double error = 1e-4 * (fabs(unit) + 1) * fabs((double)weight[i]) + 1e-6;
            compare(l, "y", unit * weight[i] + bias[i], error, y[row * width + i]);
        }
    }
}

static void check_attention(lab *l, const ufbert_isa *isa, int kind) {
    const ptrdiff_t heads = 1 + below(l, 3), size = 1 + below(l, below(l, 4) ? 20 : 70), tokens = 1 + some_tokens(l);
    const ptrdiff_t width = 3 * heads * size, window = below(l, 3) ? 0 : 1 + below(l, 6), head = below(l, (int)heads);
    const double scale = 1.0 / sqrt((double)size);
    snprintf(l->about, sizeof l->about, "%s: attention, %td tokens, head %td of %td, %td wide, window %td, kind %d",
             isa->name, tokens, head, heads, size, window, kind);
    float *qkv = inputs(l, kind == LARGE || kind == NONFINITE ? NORMAL : kind, tokens, width);
    float *context = piece(l, (size_t)(tokens * heads * size) * sizeof(float), sizeof(float));
    const ufbert_attention attention = {
        .num_heads = heads, .head_size = size, .scale = (float)scale, .qkv = qkv, .context = context, .window = window};
    const ptrdiff_t start = below(l, (int)tokens), length = tokens - start;
    isa->dense->attention(&attention, start, length, head,
                          piece(l, ufbert_attention_scratch(length, size), UFBERT_CACHE_LINE));
    for (ptrdiff_t query = start; query < tokens && l->faults < 20; query++) {
        double sums[128] = {0.0}, total = 0.0, largest = 0.0;
        const float *q = qkv + query * width + head * size;
        for (ptrdiff_t key = start; key < tokens; key++) {
            const float *k = qkv + key * width + (heads + head) * size, *v = k + heads * size;
            double score = 0.0;
            for (ptrdiff_t i = 0; i < size; i++)
                score += (double)q[i] * k[i];
            const double weight = window && labs(key - query) >= window ? 0.0 : exp(scale * score);
            total += weight;
            for (ptrdiff_t i = 0; i < size; i++) {
                sums[i] += weight * v[i];
                largest = fmax(largest, fabs((double)v[i]));
            }
        }
        for (ptrdiff_t i = 0; i < size; i++)
            compare(l, "context", sums[i] / total, 2e-5 * largest + 1e-36, context[(query * heads + head) * size + i]);
    }
}

typedef struct {
    uint64_t seed;
    long first, last, faults;
    int step;
    pthread_t thread;
} share;

static void *run(void *argument) {
    share *s = argument;
    lab *l = calloc(1, sizeof *l);
    for (l->number = s->first; l->number < s->last && l->faults < 20; l->number += s->step) {
        l->state = s->seed * 0x9e3779b97f4a7c15u ^ (uint64_t)l->number * 0xd1342543de82ef95u;
        const ufbert_isa *isa = isas[below(l, num_isas)];
        const int kind = below(l, 2) ? NORMAL : below(l, KINDS), which = below(l, 10);
        (which < 5 ? check_trees : which < 8 ? check_linear : which < 9 ? check_norm : check_attention)(l, isa, kind);
        release(l);
    }
    s->faults = l->faults;
    free(l);
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 5)
        return fprintf(stderr, "layers SEED FIRST COUNT THREADS\n"), 2;
    const int threads = atoi(arguments[4]);
    share shares[64];
    long faults = 0;
    for (ptrdiff_t i = 0; ufbert_isa_at(i) && num_isas < MOST_ISAS; i++)
        if (ufbert_isa_at(i)->is_supported())
            isas[num_isas++] = ufbert_isa_at(i);
    for (int i = 0; i < threads && i < 64; i++) {
        const long first = atol(arguments[2]);
        shares[i] = (share){(uint64_t)atoll(arguments[1]), first + i, first + atol(arguments[3]), 0, threads, 0};
        pthread_create(&shares[i].thread, NULL, run, &shares[i]);
    }
    for (int i = 0; i < threads && i < 64; i++) {
        pthread_join(shares[i].thread, NULL);
        faults += shares[i].faults;
    }
    printf("%s layers on %d instruction sets: %ld faults\n", arguments[3], num_isas, faults);
    return faults != 0;
}
