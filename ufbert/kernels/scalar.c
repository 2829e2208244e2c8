/* Plain C for any machine. The compiler maps its own vector type of four lanes to SSE2, NEON or single floats. */
#include <math.h>
#include <string.h>

#include "inline.h"

#define ISA scalar
#define LANES 4
#define TOKENS_AT_ONCE 4
#define TILE_ROWS 4
#define PANEL_BLOCKS 1

#if !defined(__GNUC__)
#error "the kernels need GCC or Clang, for their vector types; UFBERT_NO_EXTENSION=1 builds the package without kernels"
#endif
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
/* a > b ? yes : no, in each lane; no where a or b is NaN. */
INLINE vec v_if_greater(vec a, vec b, vec yes, vec no) {
    const vec_mask greater = a > b;
    return (vec)((greater & (vec_mask)yes) | (~greater & (vec_mask)no));
}
INLINE vec v_abs(vec a) { return (vec)((vec_mask)a & 0x7fffffff); }
/* p * 2^k for a whole k from -126 to 128, given as a float. */
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
/* Halves of 32-bit words, whatever the machine's byte order: the packer writes them as words too. */
INLINE vec v_load_words(const uint16_t *p) { return v_load((const float *)p); }
INLINE vec v_low_halves(vec words) { return (vec)((vec_mask)words << 16); }
INLINE vec v_high_halves(vec words) { return (vec)((vec_mask)words & (int32_t)0xffff0000); }
INLINE float v_sum(vec a) { return (a[0] + a[2]) + (a[1] + a[3]); }

#include "halves.h"
/* Bytes 0 to 255 of values that lie between, rounded to nearest. */
INLINE void v_store_bytes(uint8_t *p, vec a) {
    for (int i = 0; i < LANES; i++)
        p[i] = (uint8_t)lrintf(a[i]);
}
/* int32 sums of LANES columns, four products of bytes at a time: unsigned inputs, signed weights. */
typedef vec_mask ivec;
typedef const int8_t *iv_weights;
typedef const uint8_t *iv_four;
INLINE ivec iv_zero(void) { return (ivec){0, 0, 0, 0}; }
INLINE vec iv_float(ivec a) { return (vec){(float)a[0], (float)a[1], (float)a[2], (float)a[3]}; }
INLINE iv_weights iv_load(const int8_t *p) { return p; }
INLINE iv_four iv_set_four(const uint8_t *p) { return p; }
INLINE ivec iv_dot(ivec sums, iv_four x, iv_weights w) {
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < 4; j++)
            sums[i] += x[j] * w[4 * i + j];
    return sums;
}

#include "table.h"
