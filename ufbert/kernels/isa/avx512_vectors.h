/* Vectors of AVX-512 (F, VL, BW, DQ): 16 lanes, 32 registers. USE_VNNI, USE_BF16: with dot products of bytes, of bfloat16,
 * in one instruction. */
#ifndef UFBERT_AVX512_VECTORS_H
#define UFBERT_AVX512_VECTORS_H

#include "../compiler.h"

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
#define TOKENS_AT_ONCE 8 /* 16 sums, one row vector or two */
#define TILE_ROWS 8      /* 16 sums, two vectors of weights, one input */
#define PANEL_BLOCKS 12  /* 24 sums, one coefficient, two row vectors */

#define VECTORS_OF_FLOATS
typedef __m512 vec;

INLINE __mmask16 first_lanes(ptrdiff_t n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1); }
INLINE vec v_set(float a) { return _mm512_set1_ps(a); }
INLINE vec v_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE vec v_load_part(const float *p, ptrdiff_t n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
INLINE void v_store(float *p, vec a) { _mm512_storeu_ps(p, a); }
INLINE void v_store_part(float *p, vec a, ptrdiff_t n) { _mm512_mask_storeu_ps(p, first_lanes(n), a); }
INLINE void v_stream(float *p, vec a) { _mm512_stream_ps(p, a); }
INLINE void v_stream_end(void) { _mm_sfence(); }
INLINE vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
INLINE vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
INLINE vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
INLINE vec v_div(vec a, vec b) { return _mm512_div_ps(a, b); }
INLINE vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vec v_abs(vec a) { return _mm512_abs_ps(a); }
INLINE vec v_if_greater(vec a, vec b, vec yes, vec no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), no, yes);
}
INLINE vec v_scale(vec p, vec k) { return _mm512_scalef_ps(p, k); }
INLINE vec v_round(vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE float v_sum(vec a) {
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

#define VECTORS_TABLES
#define TABLE_ENTRIES 16
typedef __m512i vec_index;
INLINE vec v_floor(vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
INLINE vec_index v_index(vec whole) { return _mm512_cvttps_epi32(whole); }
INLINE vec v_look_up(const float table[TABLE_ENTRIES], vec_index at) {
    return _mm512_permutexvar_ps(at, _mm512_loadu_ps(table));
}

#define VECTORS_TRANSPOSE
INLINE float v_highest(vec a) { return _mm512_reduce_max_ps(a); }
INLINE void v_transpose(vec rows[16]) {
    vec pairs[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 2) {
        pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 4) {
        for (int j = 0; j < 2; j++) {
            const __m512d a = _mm512_castps_pd(pairs[i + j]), b = _mm512_castps_pd(pairs[i + j + 2]);
            rows[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            rows[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    }
    /* rows[4 * g + c], lane 4 * b + r: row 4 * g + r, column 4 * b + c. */
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        pairs[c] = _mm512_shuffle_f32x4(rows[c], rows[4 + c], 0x88);
        pairs[4 + c] = _mm512_shuffle_f32x4(rows[c], rows[4 + c], 0xdd);
        pairs[8 + c] = _mm512_shuffle_f32x4(rows[8 + c], rows[12 + c], 0x88);
        pairs[12 + c] = _mm512_shuffle_f32x4(rows[8 + c], rows[12 + c], 0xdd);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        rows[c] = _mm512_shuffle_f32x4(pairs[c], pairs[8 + c], 0x88);
        rows[8 + c] = _mm512_shuffle_f32x4(pairs[c], pairs[8 + c], 0xdd);
        rows[4 + c] = _mm512_shuffle_f32x4(pairs[4 + c], pairs[12 + c], 0x88);
        rows[12 + c] = _mm512_shuffle_f32x4(pairs[4 + c], pairs[12 + c], 0xdd);
    }
}

#define VECTORS_OF_BF16
/* The empty assembly keeps the compiler from loading the words twice, once for each value. */
INLINE vec v_load_words(const uint16_t *p) {
    vec words = _mm512_loadu_ps((const float *)p);
    __asm__("" : "+v"(words));
    return words;
}
INLINE vec v_low_bf16(vec words) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(words), 16)); }
INLINE vec v_high_bf16(vec words) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(words), _mm512_set1_epi32((int)0xffff0000u)));
}

#ifdef USE_BF16
#define VECTORS_DOT_BF16
typedef uint16_t bf16_input;
typedef __m512bh bf16_weights;
typedef __m512bh bf16_pair;
INLINE bf16_weights bf16_load(const uint16_t *p) { return (__m512bh)_mm512_loadu_si512(p); }
INLINE bf16_pair bf16_set_pair(const bf16_input *p) {
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
}
INLINE vec bf16_dot(vec sums, bf16_pair x, bf16_weights w) { return _mm512_dpbf16_ps(sums, x, w); }
INLINE void v_store_bf16(bf16_input *p, vec a) { _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh(a)); }
#endif

#define VECTORS_OF_INT8
typedef __m512i int8_sums;
INLINE vec v_load_int8(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
INLINE void v_store_uint8(uint8_t *p, vec a) {
    _mm_storeu_si128((__m128i *)p, _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(a)));
}
INLINE int8_sums int8_zero(void) { return _mm512_setzero_si512(); }
INLINE vec int8_float(int8_sums a) { return _mm512_cvtepi32_ps(a); }
#ifdef USE_VNNI
typedef __m512i int8_weights;
typedef __m512i int8_four;
INLINE int8_weights int8_load(const int8_t *p) { return _mm512_loadu_si512(p); }
INLINE int8_four int8_set_four(const uint8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}
INLINE int8_sums int8_dot(int8_sums sums, int8_four x, int8_weights w) { return _mm512_dpbusd_epi32(sums, x, w); }
#else
typedef __m512i int8_four;
typedef struct {
    __m512i first, second; /* 8 columns of four int16 each */
} int8_weights;
INLINE int8_weights int8_load(const int8_t *p) {
    return (int8_weights){_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p)),
                          _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(p + 32)))};
}
INLINE int8_four int8_set_four(const uint8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm512_broadcastq_epi64(_mm_cvtepu8_epi16(_mm_cvtsi32_si128(four)));
}
INLINE int8_sums int8_dot(int8_sums sums, int8_four x, int8_weights w) {
    const __m512i first = _mm512_madd_epi16(x, w.first), second = _mm512_madd_epi16(x, w.second);
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    sums = _mm512_add_epi32(sums, _mm512_permutex2var_epi32(first, even, second));
    return _mm512_add_epi32(sums, _mm512_permutex2var_epi32(first, odd, second));
}
#endif

#endif
