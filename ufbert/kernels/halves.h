/* Products of pairs of bfloat16 where no instruction makes them: each half is widened to float32. */
typedef vec bf_weights; /* pairs: the first element in the low half of a word */
typedef struct {
    vec first, second;
} bf_two;

INLINE float bf_widen(uint16_t half) {
    union {
        uint32_t bits;
        float value;
    } word = {(uint32_t)half << 16};
    return word.value;
}
INLINE bf_weights bf_load(const uint16_t *p) {
    return v_load_words(p);
}
INLINE bf_two bf_set_two(const uint16_t *p) { return (bf_two){v_set(bf_widen(p[0])), v_set(bf_widen(p[1]))}; }
INLINE vec bf_dot(vec sums, bf_two x, bf_weights w) {
    return v_fma(x.second, v_high_halves(w), v_fma(x.first, v_low_halves(w), sums));
}
INLINE void v_store_halves(uint16_t *p, vec a) {
    float lanes[LANES];
    v_store(lanes, a);
    for (int i = 0; i < LANES; i++)
        p[i] = ufbert_bfloat16(lanes[i]);
}
