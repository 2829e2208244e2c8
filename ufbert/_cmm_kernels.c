#include "_cmm_kernels.h"

#include <math.h>
#include <string.h>

int ufbert_openmp_version(void) {
#ifdef _OPENMP
    return _OPENMP;
#else
    return 0;
#endif
}

static float activate(int activation, float score) {
    switch (activation) {
    case UFBERT_RELU:
        return score < 0.0f ? 0.0f : score; /* NaN stays NaN */
    case UFBERT_SILU:
        return score / (1.0f + expf(-score));
    case UFBERT_TANH:
        return tanhf(score);
    default:
        return 0.5f * score * (1.0f + erff(score * 0.70710678118654752f));
    }
}

/* One body for every instruction set. A fixed number of independent partial sums lets the compiler use vectors of
 * that many lanes without reordering anything, so the result is the same for every call. */
#define LANES_MAX 64

#define DEFINE_KERNELS(ISA, TARGET, LANES)                                                                            \
    TARGET static float dot_##ISA(const float *restrict a, const float *restrict b, ptrdiff_t n) {                    \
        float sums[LANES] = {0.0f};                                                                                   \
        ptrdiff_t i = 0;                                                                                              \
        for (; i + LANES <= n; i += LANES)                                                                            \
            for (int lane = 0; lane < LANES; lane++)                                                                  \
                sums[lane] += a[i + lane] * b[i + lane];                                                              \
        for (int lane = 0; i < n; i++, lane++)                                                                        \
            sums[lane] += a[i] * b[i];                                                                                \
        for (int half = LANES / 2; half > 0; half /= 2)                                                               \
            for (int lane = 0; lane < half; lane++)                                                                   \
                sums[lane] += sums[lane + half];                                                                      \
        return sums[0];                                                                                               \
    }                                                                                                                 \
                                                                                                                      \
    TARGET static void add_scaled_##ISA(float *restrict y, float scale, const float *restrict row, ptrdiff_t n) {     \
        for (ptrdiff_t i = 0; i < n; i++)                                                                             \
            y[i] += scale * row[i];                                                                                   \
    }                                                                                                                 \
                                                                                                                      \
    TARGET static void fff_forward_##ISA(const ufbert_fff *layer, const float *x, ptrdiff_t tokens, float *y,         \
                                         int32_t *path) {                                                             \
        const ptrdiff_t n_in = layer->width_in, n_out = layer->width_out;                                             \
        for (ptrdiff_t token = 0; token < tokens; token++, x += n_in, y += n_out) {                                   \
            memset(y, 0, (size_t)n_out * sizeof(float));                                                              \
            for (ptrdiff_t tree = 0; tree < layer->num_trees; tree++) {                                               \
                const ptrdiff_t root = tree * layer->num_nodes;                                                       \
                ptrdiff_t node = 0;                                                                                   \
                for (ptrdiff_t level = 0; level <= layer->depth; level++) {                                           \
                    const ptrdiff_t row = root + node;                                                                \
                    const float score = dot_##ISA(layer->w_in + row * n_in, x, n_in) + layer->b_in[row];              \
                    add_scaled_##ISA(y, activate(layer->activation, score), layer->w_out + row * n_out, n_out);       \
                    if (path)                                                                                         \
                        *path++ = (int32_t)node;                                                                      \
                    node = 2 * node + 1 + (score > 0.0f); /* strictly: 0 and NaN go left */                           \
                }                                                                                                     \
            }                                                                                                         \
        }                                                                                                             \
    }                                                                                                                 \
                                                                                                                      \
    TARGET static void leaf_fff_forward_##ISA(const ufbert_leaf_fff *layer, const float *x, ptrdiff_t tokens,         \
                                              float *y, float *hidden) {                                              \
        const ptrdiff_t n_in = layer->width_in, width = layer->leaf_width, n_out = layer->width_out;                  \
        for (ptrdiff_t token = 0; token < tokens; token++, x += n_in, y += n_out) {                                   \
            ptrdiff_t node = 0;                                                                                       \
            for (ptrdiff_t level = 0; level < layer->depth; level++)                                                  \
                node = 2 * node + 1 +                                                                                 \
                       (dot_##ISA(layer->node_weights + node * n_in, x, n_in) + layer->node_biases[node] >= 0.0f);    \
            const ptrdiff_t leaf = node - (((ptrdiff_t)1 << layer->depth) - 1);                                       \
            memcpy(hidden, layer->b1s + leaf * width, (size_t)width * sizeof(float));                                 \
            for (ptrdiff_t i = 0; i < n_in; i++)                                                                      \
                add_scaled_##ISA(hidden, x[i], layer->w1s + (leaf * n_in + i) * width, width);                        \
            if (layer->b2s)                                                                                           \
                memcpy(y, layer->b2s + leaf * n_out, (size_t)n_out * sizeof(float));                                  \
            else                                                                                                      \
                memset(y, 0, (size_t)n_out * sizeof(float));                                                          \
            for (ptrdiff_t i = 0; i < width; i++)                                                                     \
                add_scaled_##ISA(y, activate(layer->activation, hidden[i]), layer->w2s + (leaf * width + i) * n_out,  \
                                 n_out);                                                                              \
        }                                                                                                             \
    }                                                                                                                 \
                                                                                                                      \
    static const ufbert_kernels kernels_##ISA = {#ISA, fff_forward_##ISA, leaf_fff_forward_##ISA};

DEFINE_KERNELS(scalar, , 16)

#if defined(__GNUC__) && defined(__x86_64__)
#define UFBERT_X86 1
DEFINE_KERNELS(avx2, __attribute__((target("avx2,fma"))), 32)
DEFINE_KERNELS(avx512, __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,prefer-vector-width=512"))), 64)
#endif

ptrdiff_t ufbert_supported(const ufbert_kernels **tables, ptrdiff_t capacity) {
    ptrdiff_t count = 0;
    if (count < capacity)
        tables[count++] = &kernels_scalar;
#ifdef UFBERT_X86
    __builtin_cpu_init();
    if (count < capacity && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        tables[count++] = &kernels_avx2;
    if (count < capacity && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
        tables[count++] = &kernels_avx512;
#endif
    return count;
}
