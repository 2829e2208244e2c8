/* Vectors of NEON: 4 lanes, 32 registers. USE_DOT, USE_BF16: with dot products of bytes, of bfloat16, in one
 * instruction. */
#ifndef UFBERT_NEON_VECTORS_H
#define UFBERT_NEON_VECTORS_H

#include "../compiler.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANES 4
#define TOKENS_AT_ONCE 8 /* 16 sums, one row vector or two */
#define TILE_ROWS 8      /* 16 sums, two vectors of weights, one input */
#define PANEL 16         /* one cache line after the other */
#define PANEL_BLOCKS 3   /* 24 sums, one coefficient, two row vectors */

#define VECTORS_OF_FLOATS
typedef float32x4_t vec;

INLINE vec v_set(float a) { return vdupq_n_f32(a); }
INLINE vec v_load(const float *p) { return vld1q_f32(p); }
INLINE vec v_load_part(const float *p, ptrdiff_t n) {
    if (n >= LANES)
        return v_load(p);
    vec a = v_set(0.0f);
    if (n > 0)
        a = vld1q_lane_f32(p, a, 0);
    if (n > 1)
        a = vld1q_lane_f32(p + 1, a, 1);
    return n > 2 ? vld1q_lane_f32(p + 2, a, 2) : a;
}
INLINE void v_store(float *p, vec a) { vst1q_f32(p, a); }
INLINE void v_store_part(float *p, vec a, ptrdiff_t n) {
    if (n >= LANES) {
        v_store(p, a);
        return;
    }
    if (n > 0)
        vst1q_lane_f32(p, a, 0);
    if (n > 1)
        vst1q_lane_f32(p + 1, a, 1);
    if (n > 2)
        vst1q_lane_f32(p + 2, a, 2);
}
INLINE void v_stream(float *p, vec a) { v_store(p, a); } /* there is only a hint for pairs of vectors */
INLINE void v_stream_end(void) {}
INLINE vec v_add(vec a, vec b) { return vaddq_f32(a, b); }
INLINE vec v_sub(vec a, vec b) { return vsubq_f32(a, b); }
INLINE vec v_mul(vec a, vec b) { return vmulq_f32(a, b); }
INLINE vec v_div(vec a, vec b) { return vdivq_f32(a, b); }
INLINE vec v_fma(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
INLINE vec v_abs(vec a) { return vabsq_f32(a); }
INLINE vec v_if_greater(vec a, vec b, vec yes, vec no) { return vbslq_f32(vcgtq_f32(a, b), yes, no); }
/* In two steps, because 2^128 is not a float. */
INLINE vec v_scale(vec p, vec k) {
    const int32x4_t whole = vcvtq_s32_f32(k), half = vshrq_n_s32(whole, 1), bias = vdupq_n_s32(127);
    const int32x4_t rest = vsubq_s32(whole, half);
    p = vmulq_f32(p, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23)));
    return vmulq_f32(p, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(rest, bias), 23)));
}
INLINE vec v_round(vec a) { return vrndnq_f32(a); }
INLINE float v_sum(vec a) { return vaddvq_f32(a); } /* (0 + 1) + (2 + 3) */

#define VECTORS_TRANSPOSE
INLINE float v_highest(vec a) { return vmaxvq_f32(a); }
INLINE void v_transpose(vec rows[4]) {
    const float32x4x2_t a = vtrnq_f32(rows[0], rows[1]), b = vtrnq_f32(rows[2], rows[3]);
    rows[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    rows[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    rows[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    rows[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

#define VECTORS_OF_BF16
INLINE vec v_load_words(const uint16_t *p) { return vreinterpretq_f32_u16(vld1q_u16(p)); }
INLINE vec v_low_bf16(vec words) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(words), 16)); }
INLINE vec v_high_bf16(vec words) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(words), vdupq_n_u32(0xffff0000u)));
}

#ifdef USE_BF16
#define VECTORS_DOT_BF16
typedef uint16_t bf16_input;
typedef bfloat16x8_t bf16_weights;
typedef bfloat16x8_t bf16_pair;
INLINE bf16_weights bf16_load(const uint16_t *p) { return vreinterpretq_bf16_u16(vld1q_u16(p)); }
INLINE bf16_pair bf16_set_pair(const bf16_input *p) {
    uint32_t pair;
    memcpy(&pair, p, sizeof pair);
    return vreinterpretq_bf16_u32(vdupq_n_u32(pair));
}
INLINE vec bf16_dot(vec sums, bf16_pair x, bf16_weights w) { return vbfdotq_f32(sums, w, x); }
INLINE void v_store_bf16(bf16_input *p, vec a) { vst1_u16(p, vreinterpret_u16_bf16(vcvt_bf16_f32(a))); }
#endif

#define VECTORS_OF_INT8
#define INT8_SIGNED /* there is no product of unsigned with signed bytes */
typedef int32x4_t int8_sums;
INLINE vec v_load_int8(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    const int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
}
INLINE void v_store_uint8(uint8_t *p, vec a) {
    const uint16x4_t words = vmovn_u32(vcvtnq_u32_f32(a));
    const uint32_t four = vget_lane_u32(vreinterpret_u32_u8(vmovn_u16(vcombine_u16(words, words))), 0);
    memcpy(p, &four, sizeof four);
}
INLINE int8_sums int8_zero(void) { return vdupq_n_s32(0); }
INLINE vec int8_float(int8_sums a) { return vcvtq_f32_s32(a); }
#ifdef USE_DOT
typedef int8x16_t int8_weights;
typedef int8x16_t int8_four;
INLINE int8_weights int8_load(const int8_t *p) { return vld1q_s8(p); }
INLINE int8_four int8_set_four(const uint8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
INLINE int8_sums int8_dot(int8_sums sums, int8_four x, int8_weights w) { return vdotq_s32(sums, w, x); }
#else
typedef int8x8x2_t int8_weights; /* the first two bytes of each four, the last two */
typedef int8x8x2_t int8_four;
INLINE int8_weights int8_load(const int8_t *p) {
    const int16x4x2_t pairs = vld2_s16((const int16_t *)p);
    return (int8_weights){{vreinterpret_s8_s16(pairs.val[0]), vreinterpret_s8_s16(pairs.val[1])}};
}
INLINE int8_four int8_set_four(const uint8_t *p) {
    const int16x4x2_t pairs = vld2_dup_s16((const int16_t *)p);
    return (int8_four){{vreinterpret_s8_s16(pairs.val[0]), vreinterpret_s8_s16(pairs.val[1])}};
}
/* Products of two bytes fit 16 bits, and sums of two of them do not. */
INLINE int8_sums int8_dot(int8_sums sums, int8_four x, int8_weights w) {
    sums = vpadalq_s16(sums, vmull_s8(w.val[0], x.val[0]));
    return vpadalq_s16(sums, vmull_s8(w.val[1], x.val[1]));
}
#endif

#endif
