/* Plain C for any machine. The compiler maps its own vector type of four lanes to SSE2, NEON or single floats. */
#include "../isa.h"

#include <string.h>

#define ISA generic
#define LANES 4
#define TOKENS_AT_ONCE 4
#define TILE_ROWS 4
#define PANEL_BLOCKS 1
#define WALK_IN_ORDER

#define VECTORS_OF_FLOATS
typedef float vec __attribute__((vector_size(16)));
typedef int32_t vec_mask __attribute__((vector_size(16)));

INLINE vec v_set(float a) { return (vec){a, a, a, a}; }
INLINE vec v_load(const float *p) {
    vec a;
    memcpy(&a, p, sizeof a);
    return a;
}
INLINE vec v_load_part(const float *p, ptrdiff_t n) {
    vec a = v_set(0.0f);
    for (int i = 0; i < LANES && i < n; i++)
        a[i] = p[i];
    return a;
}
INLINE void v_store(float *p, vec a) { memcpy(p, &a, sizeof a); }
INLINE void v_store_part(float *p, vec a, ptrdiff_t n) {
    for (int i = 0; i < LANES && i < n; i++)
        p[i] = a[i];
}
INLINE void v_stream(float *p, vec a) { v_store(p, a); }
INLINE void v_stream_end(void) {}
INLINE vec v_add(vec a, vec b) { return a + b; }
INLINE vec v_sub(vec a, vec b) { return a - b; }
INLINE vec v_mul(vec a, vec b) { return a * b; }
INLINE vec v_div(vec a, vec b) { return a / b; }
INLINE vec v_fma(vec a, vec b, vec c) { return a * b + c; }
INLINE vec v_if_greater(vec a, vec b, vec yes, vec no) {
    const vec_mask greater = a > b;
    return (vec)((greater & (vec_mask)yes) | (~greater & (vec_mask)no));
}
INLINE vec v_abs(vec a) { return (vec)((vec_mask)a & 0x7fffffff); }
INLINE vec v_scale(vec p, vec k) {
    for (int i = 0; i < LANES; i++)
        p[i] = k[i] == k[i] ? ldexpf(p[i], (int)k[i]) : k[i];
    return p;
}
INLINE vec v_round(vec a) {
    for (int i = 0; i < LANES; i++)
        a[i] = rintf(a[i]);
    return a;
}
INLINE float v_sum(vec a) { return (a[0] + a[2]) + (a[1] + a[3]); }

#define VECTORS_OF_BF16
INLINE vec v_load_words(const uint16_t *p) {
    vec words;
    memcpy(&words, p, sizeof words);
    return words;
}
INLINE vec v_low_bf16(vec words) { return (vec)((vec_mask)words << 16); }
INLINE vec v_high_bf16(vec words) { return (vec)((vec_mask)words & (int32_t)0xffff0000); }

#define VECTORS_OF_INT8
typedef vec_mask int8_sums;
typedef const int8_t *int8_weights;
typedef const uint8_t *int8_four;
INLINE vec v_load_int8(const int8_t *p) { return (vec){(float)p[0], (float)p[1], (float)p[2], (float)p[3]}; }
INLINE void v_store_uint8(uint8_t *p, vec a) {
    for (int i = 0; i < LANES; i++)
        p[i] = (uint8_t)lrintf(a[i]);
}
INLINE int8_sums int8_zero(void) { return (int8_sums){0, 0, 0, 0}; }
INLINE vec int8_float(int8_sums a) { return (vec){(float)a[0], (float)a[1], (float)a[2], (float)a[3]}; }
INLINE int8_weights int8_load(const int8_t *p) { return p; }
INLINE int8_four int8_set_four(const uint8_t *p) { return p; }
INLINE int8_sums int8_dot(int8_sums sums, int8_four x, int8_weights w) {
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < 4; j++)
            sums[i] += x[j] * w[4 * i + j];
    return sums;
}

#include "../dense/table.h"
#include "../fff/table.h"

static int is_supported(void) { return 1; }

const ufbert_isa ufbert_isa_generic = {"generic", is_supported, &ufbert_fff_generic, &dense_kernels};
