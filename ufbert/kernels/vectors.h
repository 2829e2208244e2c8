/* The contract of an instruction set.
 *
 * Its file isa/NAME.c defines the macros and functions below, includes dense/table.h and fff/table.h, which compile the
 * kernels with them, and defines `ufbert_isa_NAME`. One that only multiplies bytes in another way includes the first and
 * takes the FFF kernels of its base. A line in dispatch.c and one in setup.py complete it.
 *
 * Macros
 *     ISA             its name
 *     LANES           float32 values of a vector: 4, 8 or 16
 *     TOKENS_AT_ONCE  tokens that share the loads of a row of a tree, each with two vectors of sums: 4 or 8
 *     TILE_ROWS       rows of a tile of a linear layer, each of two vectors of sums: 4, 6 or 8
 *     PANEL_BLOCKS    blocks of 32 columns summed in registers when rows of a tree are added
 *
 * VECTORS_OF_FLOATS: a type `vec` and
 *     v_set, v_load, v_load_part, v_store, v_store_part (the first n lanes; others are read as 0 and not written),
 *     v_stream, v_stream_end (stores past the caches), v_add, v_sub, v_mul, v_div, v_fma (a * b + c),
 *     v_if_greater(a, b, yes, no) (no where a or b is NaN), v_abs, v_round (ties to even),
 *     v_scale(p, k) (p * 2^k for a whole k from -126 to 128), v_sum (of all lanes, in one fixed order)
 *
 * VECTORS_OF_BF16: 32-bit words of two bfloat16
 *     v_load_words, v_low_bf16, v_high_bf16 (as float32)
 *
 * VECTORS_OF_INT8: types int8_sums, int8_weights, int8_four and
 *     v_load_int8 (LANES int8 as float32), v_store_uint8 (values from 0 to 255, rounded to nearest, ties to even),
 *     int8_zero, int8_float, int8_load (LANES columns of four weights), int8_set_four (four uint8 for all columns),
 *     int8_dot(sums, x, w): exact int32 sums of four products a column
 *     INT8_SIGNED, if the four inputs that it takes are int8 and not uint8: 128 less
 *
 * Optional, each with a plain version below or in the kernel that uses it
 *     PANEL:             columns that lie together in packed weights, a multiple of 2 * LANES; else 32
 *     FETCH_PANELS:      a panel of weights is prefetched while rows meet the one before it
 *     WALK_IN_ORDER:     many tokens go down trees as fff/walk.h has it, not as fff/descend.h: where it was measured
 *     VECTORS_TRANSPOSE: v_transpose (rows of LANES vectors become columns), v_highest (the largest lane)
 *     VECTORS_DOT_BF16:  bf16_input (how an input is kept), bf16_weights, bf16_pair, bf16_load, bf16_set_pair, bf16_dot,
 *                        v_store_bf16 (values rounded, as inputs)
 *     VECTORS_IN_PLACE:  for compilers that run out of registers: v_fma_in_place (as v_fma, and the sums stay where
 *                        they are), v_add_products (adds *x * a, *x * b to two sums, likewise), v_after(p, a) (is p,
 *                        from which nothing is read before a is computed), v_once (is a, and is not loaded again)
 *     VECTORS_MAX:       v_max, v_min (b where a or b is NaN)
 *     VECTORS_SCALE_DOWN: v_scale_down(p, k) (the same as v_scale, for k from -126 to 0)
 *     VECTORS_ROUND_BF16: v_round_bf16 (to the nearest bfloat16, ties to even, NaN stays NaN)
 *     VECTORS_INT8_WORDS: weights of two columns in 16 bits, 256 * w[c + LANES] + w[c] + 128, two products a step. In
 *                        place of the last three of VECTORS_OF_INT8: int8_input, int8_inputs, int8_set (two inputs for
 *                        all columns), int8_load, int8_load_next (columns c, whole words; columns c + LANES), int8_dot,
 *                        int8_first (the sums of columns c), v_store_int8_inputs
 *     VECTORS_TABLES:    vec_index, v_floor, v_index, v_look_up, of tables of TABLE_ENTRIES floats */
#ifndef UFBERT_VECTORS_H
#define UFBERT_VECTORS_H

#include "dtypes.h"

#include <string.h>

#if !defined(ISA)
#error "an instruction set has no name: its file in kernels/isa/ defines ISA before it includes the kernels"
#endif
#if LANES != 4 && LANES != 8 && LANES != 16
#error "an instruction set must define LANES as 4, 8 or 16; see kernels/vectors.h"
#endif
#if TOKENS_AT_ONCE != 4 && TOKENS_AT_ONCE != 8
#error "an instruction set must define TOKENS_AT_ONCE as 4 or 8; see kernels/vectors.h"
#endif
#if TILE_ROWS != 4 && TILE_ROWS != 6 && TILE_ROWS != 8
#error "an instruction set must define TILE_ROWS as 4, 6 or 8; see kernels/vectors.h"
#endif
#ifndef PANEL
#define PANEL 32
#endif
#if PANEL % (2 * LANES) || PANEL > 32
#error "an instruction set must define PANEL as a multiple of 2 * LANES up to 32; see kernels/vectors.h"
#endif
#if !defined(PANEL_BLOCKS) || PANEL_BLOCKS < 1
#error "an instruction set must define PANEL_BLOCKS as 1 or more; see kernels/vectors.h"
#endif
#if !defined(VECTORS_OF_FLOATS)
#error \
    "an instruction set lacks its float32 vectors (VECTORS_OF_FLOATS: vec, v_set, v_load, ...); see kernels/vectors.h"
#endif
#if !defined(VECTORS_OF_BF16)
#error "an instruction set lacks its bfloat16 vectors (VECTORS_OF_BF16: v_load_words, ...); see kernels/vectors.h"
#endif
#if !defined(VECTORS_OF_INT8)
#error "an instruction set lacks its int8 vectors (VECTORS_OF_INT8: int8_dot, v_load_int8, ...); see kernels/vectors.h"
#endif
_Static_assert(sizeof(vec) == LANES * sizeof(float), "a vector has LANES floats");
_Static_assert(LANES <= UFBERT_MOST_LANES && TILE_ROWS <= UFBERT_MOST_TILE_ROWS, "scratch is made for such");

#ifndef VECTORS_TRANSPOSE
INLINE void v_transpose(vec rows[LANES]) {
    float lanes[LANES][LANES], column[LANES];
    for (int i = 0; i < LANES; i++)
        v_store(lanes[i], rows[i]);
    for (int j = 0; j < LANES; j++) {
        for (int i = 0; i < LANES; i++)
            column[i] = lanes[i][j];
        rows[j] = v_load(column);
    }
}
INLINE float v_highest(vec a) {
    float lanes[LANES], highest = -INFINITY;
    v_store(lanes, a);
    for (int i = 0; i < LANES; i++)
        highest = lanes[i] > highest ? lanes[i] : highest;
    return highest;
}
#endif

#ifndef VECTORS_IN_PLACE
INLINE vec v_fma_in_place(vec a, vec b, vec sums) { return v_fma(a, b, sums); }
INLINE void v_add_products(vec sums[2], const float *x, vec a, vec b) {
    sums[0] = v_fma(v_set(*x), a, sums[0]);
    sums[1] = v_fma(v_set(*x), b, sums[1]);
}
INLINE const uint16_t *v_after(const uint16_t *p, vec a) {
    (void)a;
    return p;
}
INLINE vec v_once(vec a) { return a; }
#endif

#ifndef VECTORS_MAX
INLINE vec v_max(vec a, vec b) { return v_if_greater(a, b, a, b); }
INLINE vec v_min(vec a, vec b) { return v_if_greater(b, a, a, b); }
#endif

#ifndef VECTORS_SCALE_DOWN
INLINE vec v_scale_down(vec p, vec k) { return v_scale(p, k); }
#endif

#ifndef VECTORS_ROUND_BF16
INLINE vec v_round_bf16(vec a) {
    float lanes[LANES];
    v_store(lanes, a);
    for (int i = 0; i < LANES; i++) {
        const union {
            uint32_t bits;
            float value;
        } word = {(uint32_t)ufbert_bf16(lanes[i]) << 16};
        lanes[i] = word.value;
    }
    return v_load(lanes);
}
#endif

#ifndef VECTORS_DOT_BF16 /* inputs are kept as rounded floats, and weights are widened */
typedef float bf16_input;
INLINE void v_store_bf16(bf16_input *p, vec a) { v_store(p, v_round_bf16(a)); }
#endif

#ifdef VECTORS_INT8_WORDS
#define INT8_WORDS 1
#define INT8_PRODUCTS 2
_Static_assert(PANEL == 2 * LANES, "words have two columns of a panel");
#else
#define INT8_WORDS 0
#define INT8_PRODUCTS 4
typedef uint8_t int8_input;
typedef int8_four int8_inputs;
INLINE int8_inputs int8_set(const int8_input *p) { return int8_set_four(p); }
INLINE int8_weights int8_load_next(const int8_t *p, int8_weights w) {
    (void)w;
    return int8_load(p + LANES * 4);
}
INLINE int8_sums int8_first(int8_sums first, int8_sums next, int32_t total) {
    (void)next, (void)total;
    return first;
}
INLINE void v_store_int8_inputs(int8_input *p, vec a) { v_store_uint8(p, a); }
#endif

/* Calls of a function that is compiled for each dtype, and for each count from 1 on. */
#define SWITCH_DTYPE(dtype, CALL)               \
    switch (dtype) {                            \
    case UFBERT_F32: CALL(UFBERT_F32); break;   \
    case UFBERT_BF16: CALL(UFBERT_BF16); break; \
    case UFBERT_INT8: CALL(UFBERT_INT8); break; \
    }
#define CASES_TO_4(CALL)    \
    case 1: CALL(1); break; \
    case 2: CALL(2); break; \
    case 3: CALL(3); break; \
    case 4: CALL(4); break;
#define CASES_TO_6(CALL)    \
    CASES_TO_4(CALL)        \
    case 5: CALL(5); break; \
    case 6: CALL(6); break;
#define CASES_TO_8(CALL)    \
    CASES_TO_6(CALL)        \
    case 7: CALL(7); break; \
    case 8: CALL(8); break;
#if TOKENS_AT_ONCE == 8
#define SWITCH_TOKENS(count, CALL) \
    switch (count) { CASES_TO_8(CALL) }
#else
#define SWITCH_TOKENS(count, CALL) \
    switch (count) { CASES_TO_4(CALL) }
#endif
#if TILE_ROWS == 8
#define SWITCH_ROWS(count, CALL) \
    switch (count) { CASES_TO_8(CALL) }
#elif TILE_ROWS == 6
#define SWITCH_ROWS(count, CALL) \
    switch (count) { CASES_TO_6(CALL) }
#else
#define SWITCH_ROWS(count, CALL) \
    switch (count) { CASES_TO_4(CALL) }
#endif

#endif
