/* Vectors of AVX2 and FMA: 8 lanes, 16 registers. USE_VNNI: with dot products of bytes from AVX-VNNI. */
#ifndef UFBERT_AVX2_VECTORS_H
#define UFBERT_AVX2_VECTORS_H

#include "../compiler.h"

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANES 8
#define TOKENS_AT_ONCE 4
#define TILE_ROWS 6 /* 12 sums, two vectors of weights, one input */
#define PANEL 16    /* its lines follow each other; of 32 columns, every other one would be skipped */
#define FETCH_PANELS
#define PANEL_BLOCKS 3
#define WALK_IN_ORDER

#define VECTORS_OF_FLOATS
typedef __m256 vec;

INLINE __m256i first_lanes(ptrdiff_t n) {
    const int kept = n < 0 ? 0 : n > 8 ? 8 : (int)n;
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(kept), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE vec v_set(float a) { return _mm256_set1_ps(a); }
INLINE vec v_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE vec v_load_part(const float *p, ptrdiff_t n) { return _mm256_maskload_ps(p, first_lanes(n)); }
INLINE void v_store(float *p, vec a) { _mm256_storeu_ps(p, a); }
INLINE void v_store_part(float *p, vec a, ptrdiff_t n) { _mm256_maskstore_ps(p, first_lanes(n), a); }
INLINE void v_stream(float *p, vec a) { _mm256_stream_ps(p, a); }
INLINE void v_stream_end(void) { _mm_sfence(); }
INLINE vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
INLINE vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
INLINE vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
INLINE vec v_div(vec a, vec b) { return _mm256_div_ps(a, b); }
INLINE vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
/* The same with sums that stay in their register: left to itself, GCC 12 copies some of twelve and spills others. */
#define VECTORS_IN_PLACE
INLINE vec v_fma_in_place(vec a, vec b, vec sums) {
    __asm__("vfmadd231ps %2, %1, %0" : "+x"(sums) : "x"(a), "x"(b));
    return sums;
}
INLINE vec v_abs(vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
INLINE vec v_if_greater(vec a, vec b, vec yes, vec no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
}
/* In two steps, because 2^128 is not a float. */
INLINE vec v_scale(vec p, vec k) {
    const __m256i whole = _mm256_cvtps_epi32(k), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
    const __m256i rest = _mm256_sub_epi32(whole, half);
    p = _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23)));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23)));
}
#define VECTORS_MAX
INLINE vec v_max(vec a, vec b) { return _mm256_max_ps(a, b); }
INLINE vec v_min(vec a, vec b) { return _mm256_min_ps(a, b); }
#define VECTORS_SCALE_DOWN
INLINE vec v_scale_down(vec p, vec k) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(k), _mm256_set1_epi32(127));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}
INLINE vec v_round(vec a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE float v_sum(vec a) {
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

#define VECTORS_OF_BF16
INLINE vec v_load_words(const uint16_t *p) { return _mm256_loadu_ps((const float *)p); }
INLINE vec v_low_bf16(vec words) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(words), 16)); }
INLINE vec v_high_bf16(vec words) {
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(words), _mm256_set1_epi32((int)0xffff0000u)));
}

/* Of the 16 registers a tile needs all: GCC would copy sums, and load weights and inputs too early. */
INLINE void v_add_products(vec sums[2], const float *x, vec a, vec b) {
    vec first = sums[0], second = sums[1], value;
    __asm__("vbroadcastss %3, %2\n\tvfmadd231ps %4, %2, %0\n\tvfmadd231ps %5, %2, %1"
            : "+x"(first), "+x"(second), "=&x"(value)
            : "m"(*x), "x"(a), "x"(b));
    sums[0] = first;
    sums[1] = second;
}
INLINE const uint16_t *v_after(const uint16_t *p, vec a) {
    __asm__("" : "+r"(p) : "x"(a));
    return p;
}

/* GCC would load the words of two vectors twice, where loads are the limit. */
INLINE vec v_once(vec a) {
    __asm__("" : "+x"(a));
    return a;
}

#define VECTORS_ROUND_BF16
INLINE vec v_round_bf16(vec a) {
    const __m256i bits = _mm256_castps_si256(a),
                  last = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const vec rounded = _mm256_castsi256_ps(_mm256_add_epi32(bits, _mm256_add_epi32(last, _mm256_set1_epi32(0x7fff))));
    const vec quiet = _mm256_or_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(0x00400000)));
    return v_high_bf16(_mm256_blendv_ps(rounded, quiet, _mm256_cmp_ps(a, a, _CMP_UNORD_Q)));
}

#define VECTORS_OF_INT8
typedef __m256i int8_sums;
INLINE vec v_load_int8(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
INLINE void v_store_uint8(uint8_t *p, vec a) {
    const __m256i whole = _mm256_cvtps_epi32(a);
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(words, words));
}
INLINE int8_sums int8_zero(void) { return _mm256_setzero_si256(); }
INLINE vec int8_float(int8_sums a) { return _mm256_cvtepi32_ps(a); }
#ifdef USE_VNNI
typedef __m256i int8_weights;
typedef __m256i int8_four;
INLINE int8_weights int8_load(const int8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE int8_four int8_set_four(const uint8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}
INLINE int8_sums int8_dot(int8_sums sums, int8_four x, int8_weights w) { return _mm256_dpbusd_avx_epi32(sums, x, w); }
#else
/* Two columns a word: a shift gives those of the high bytes, and whole words give 256 times those and the others. That is
 * one instruction for 32 weights where widening takes four. Sums of whole words wrap; their difference does not. */
#define VECTORS_INT8_WORDS
typedef int16_t int8_input;
typedef __m256i int8_weights;
typedef __m256i int8_inputs;
INLINE int8_weights int8_load(const int8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE int8_weights int8_load_next(const int8_t *p, int8_weights words) {
    (void)p;
    return _mm256_srai_epi16(words, 8);
}
INLINE int8_inputs int8_set(const int8_input *p) {
    int32_t two;
    memcpy(&two, p, sizeof two);
    return _mm256_set1_epi32(two);
}
/* In assembly, because GCC would else keep sums in memory. */
INLINE int8_sums int8_dot(int8_sums sums, int8_inputs x, int8_weights w) {
    const __m256i products = _mm256_madd_epi16(x, w);
    __asm__("vpaddd %1, %0, %0" : "+x"(sums) : "x"(products));
    return sums;
}
INLINE int8_sums int8_first(int8_sums words, int8_sums next, int32_t total) {
    return _mm256_sub_epi32(_mm256_sub_epi32(words, _mm256_slli_epi32(next, 8)), _mm256_set1_epi32(total));
}
INLINE void v_store_int8_inputs(int8_input *p, vec a) {
    const __m256i whole = _mm256_cvtps_epi32(a);
    _mm_storeu_si128((__m128i *)p, _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1)));
}
#endif

#endif
