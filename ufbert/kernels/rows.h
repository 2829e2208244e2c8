/* The two operations on weight rows that everything is made of: dot products of one row with several tokens, and
 * weighted sums of several rows. Both fix the order of every addition by position alone. */

enum {
    EACH_AT_ONCE = 4,
    LONG_ROW = 4096,          /* elements, from which on the processor's own prefetcher falls behind */
    FETCH_BYTES_AHEAD = 2048, /* in long rows */
};

/* Two vectors of a row: at element `at` of the first and of the second half of a block. */
INLINE void load_row(const int bfloat16, const char *row, ptrdiff_t block, int at, vec *low, vec *high) {
    if (bfloat16) {
        const vec words = v_load_words((const uint16_t *)row + block * UFBERT_BLOCK + 2 * at);
        *low = v_low_halves(words);
        *high = v_high_halves(words);
    } else {
        *low = v_load((const float *)row + block * UFBERT_BLOCK + at);
        *high = v_load((const float *)row + block * UFBERT_BLOCK + UFBERT_BLOCK / 2 + at);
    }
}

/* The same in the last, incomplete block, of which `left` elements exist. Packed bfloat16 rows are filled up. */
INLINE void load_row_part(const int bfloat16, const char *row, ptrdiff_t block, int at, ptrdiff_t left, vec *low,
                          vec *high) {
    const float *floats = (const float *)row + block * UFBERT_BLOCK + at;
    if (bfloat16) {
        load_row(1, row, block, at, low, high);
    } else {
        *low = v_load_part(floats, left - at);
        *high = v_load_part(floats + UFBERT_BLOCK / 2, left - UFBERT_BLOCK / 2 - at);
    }
}

/* dots[t] = row . xs[t] for `count` tokens, a constant. Each dot product has one vector of sums for the first halves
 * of the blocks and one for the second halves, whatever `count` is: a row vector is loaded once for all tokens. */
INLINE void dot_unrolled(const int count, const int bfloat16, const char *row, const float *const *xs, ptrdiff_t n,
                         float *dots) {
    const int half = UFBERT_BLOCK / 2;
    const ptrdiff_t blocks = n / UFBERT_BLOCK, left = n % UFBERT_BLOCK;
    vec low[TOKENS_AT_ONCE], high[TOKENS_AT_ONCE];
#pragma GCC unroll 8
    for (int t = 0; t < count; t++)
        low[t] = high[t] = v_set(0.0f);
    for (ptrdiff_t block = 0; block < blocks; block++)
#pragma GCC unroll 8
        for (int at = 0; at < half; at += LANES) {
            vec first, second;
            load_row(bfloat16, row, block, at, &first, &second);
#pragma GCC unroll 8
            for (int t = 0; t < count; t++) {
                low[t] = v_fma(first, v_load(xs[t] + block * UFBERT_BLOCK + at), low[t]);
                high[t] = v_fma(second, v_load(xs[t] + block * UFBERT_BLOCK + half + at), high[t]);
            }
        }
    if (left)
        for (int at = 0; at < half; at += LANES) {
            vec first, second;
            load_row_part(bfloat16, row, blocks, at, left, &first, &second);
#pragma GCC unroll 8
            for (int t = 0; t < count; t++) {
                const float *x = xs[t] + blocks * UFBERT_BLOCK + at;
                low[t] = v_fma(first, v_load_part(x, left - at), low[t]);
                high[t] = v_fma(second, v_load_part(x + half, left - half - at), high[t]);
            }
        }
#pragma GCC unroll 8
    for (int t = 0; t < count; t++)
        dots[t] = v_sum(v_add(low[t], high[t]));
}

#define DOT_CASES(bfloat16)                                                                                           \
    switch (count) {                                                                                                  \
    case 1: dot_unrolled(1, bfloat16, row, xs, n, dots); return;                                                      \
    case 2: dot_unrolled(2, bfloat16, row, xs, n, dots); return;                                                      \
    case 3: dot_unrolled(3, bfloat16, row, xs, n, dots); return;                                                      \
    case 4: dot_unrolled(4, bfloat16, row, xs, n, dots); return;                                                      \
    DOT_CASES_ABOVE_4(bfloat16)                                                                                       \
    }

#if TOKENS_AT_ONCE == 8
#define DOT_CASES_ABOVE_4(bfloat16)                                                                                   \
    case 5: dot_unrolled(5, bfloat16, row, xs, n, dots); return;                                                      \
    case 6: dot_unrolled(6, bfloat16, row, xs, n, dots); return;                                                      \
    case 7: dot_unrolled(7, bfloat16, row, xs, n, dots); return;                                                      \
    case 8: dot_unrolled(8, bfloat16, row, xs, n, dots); return;
#else
#define DOT_CASES_ABOVE_4(bfloat16)
#endif

/* dots[t] = row . xs[t] for 1 to TOKENS_AT_ONCE tokens. */
static void dot_rows(int bfloat16, const char *row, const float *const *xs, int count, ptrdiff_t n, float *dots) {
    if (bfloat16)
        DOT_CASES(1)
    else
        DOT_CASES(0)
}

/* dots[t] = rows[t] . xs[t], for tokens that share no row: the same sums in the same order, with several tokens in
 * flight to hide the latency of the additions. */
INLINE void dot_each_unrolled(const int count, const int bfloat16, const int long_rows, const char *const *rows,
                              const float *const *xs, ptrdiff_t n, float *dots) {
    const int half = UFBERT_BLOCK / 2, block_bytes = UFBERT_BLOCK * (bfloat16 ? 2 : 4);
    const ptrdiff_t blocks = n / UFBERT_BLOCK, left = n % UFBERT_BLOCK;
    vec low[EACH_AT_ONCE], high[EACH_AT_ONCE], first, second;
#pragma GCC unroll 8
    for (int t = 0; t < count; t++)
        low[t] = high[t] = v_set(0.0f);
    for (ptrdiff_t block = 0; block < blocks; block++) {
        if (long_rows)
            for (int t = 0; t < count; t++)
                prefetch_bytes(rows[t] + block * block_bytes + FETCH_BYTES_AHEAD, block_bytes);
#pragma GCC unroll 8
        for (int at = 0; at < half; at += LANES)
#pragma GCC unroll 8
            for (int t = 0; t < count; t++) {
                load_row(bfloat16, rows[t], block, at, &first, &second);
                low[t] = v_fma(first, v_load(xs[t] + block * UFBERT_BLOCK + at), low[t]);
                high[t] = v_fma(second, v_load(xs[t] + block * UFBERT_BLOCK + half + at), high[t]);
            }
    }
    if (left)
        for (int at = 0; at < half; at += LANES)
#pragma GCC unroll 8
            for (int t = 0; t < count; t++) {
                const float *x = xs[t] + blocks * UFBERT_BLOCK + at;
                load_row_part(bfloat16, rows[t], blocks, at, left, &first, &second);
                low[t] = v_fma(first, v_load_part(x, left - at), low[t]);
                high[t] = v_fma(second, v_load_part(x + half, left - half - at), high[t]);
            }
#pragma GCC unroll 8
    for (int t = 0; t < count; t++)
        dots[t] = v_sum(v_add(low[t], high[t]));
}

static void dot_each(int bfloat16, const char *const *rows, const float *const *xs, int count, ptrdiff_t n,
                     float *dots) {
    for (; count >= EACH_AT_ONCE; count -= EACH_AT_ONCE) {
        if (bfloat16 && n > LONG_ROW)
            dot_each_unrolled(EACH_AT_ONCE, 1, 1, rows, xs, n, dots);
        else if (bfloat16)
            dot_each_unrolled(EACH_AT_ONCE, 1, 0, rows, xs, n, dots);
        else if (n > LONG_ROW)
            dot_each_unrolled(EACH_AT_ONCE, 0, 1, rows, xs, n, dots);
        else
            dot_each_unrolled(EACH_AT_ONCE, 0, 0, rows, xs, n, dots);
        rows += EACH_AT_ONCE;
        xs += EACH_AT_ONCE;
        dots += EACH_AT_ONCE;
    }
    for (int t = 0; t < count; t++)
        dot_rows(bfloat16, rows[t], xs + t, 1, n, dots + t);
}

enum { START_AT_ZERO, START_AT_Y };        /* what a weighted sum is added to */
enum { THROUGH_CACHES, PAST_THE_CACHES };  /* how it is stored */

/* Columns of `panel` blocks from `block` on: y = start + sum over r of coefs[r] * rows[r], summed in registers. */
INLINE void mix_panel(const int panel, const int bfloat16, const int start, const int past, float *y,
                      const char *const *rows, const float *coefs, ptrdiff_t count, ptrdiff_t block) {
    enum { HALF = UFBERT_BLOCK / 2, STEPS = HALF / LANES };
    vec low[PANEL_BLOCKS * STEPS], high[PANEL_BLOCKS * STEPS];
    y += block * UFBERT_BLOCK;
#pragma GCC unroll 32
    for (int i = 0; i < panel * STEPS; i++) {
        const float *at = y + i / STEPS * UFBERT_BLOCK + i % STEPS * LANES;
        low[i] = start == START_AT_Y ? v_load(at) : v_set(0.0f);
        high[i] = start == START_AT_Y ? v_load(at + HALF) : v_set(0.0f);
    }
    for (ptrdiff_t r = 0; r < count; r++) {
        const vec coef = v_set(coefs[r]);
        const char *row = rows[r] + block * UFBERT_BLOCK * (bfloat16 ? 2 : 4); /* the rest of each address is constant */
#pragma GCC unroll 32
        for (int i = 0; i < panel * STEPS; i++) {
            vec first, second;
            load_row(bfloat16, row, i / STEPS, i % STEPS * LANES, &first, &second);
            low[i] = v_fma(coef, first, low[i]);
            high[i] = v_fma(coef, second, high[i]);
        }
    }
#pragma GCC unroll 32
    for (int i = 0; i < panel * STEPS; i++) {
        float *at = y + i / STEPS * UFBERT_BLOCK + i % STEPS * LANES;
        if (past == PAST_THE_CACHES) {
            v_stream(at, low[i]);
            v_stream(at + HALF, high[i]);
        } else {
            v_store(at, low[i]);
            v_store(at + HALF, high[i]);
        }
    }
}

/* The last, incomplete block of `left` columns. */
static void mix_tail(int bfloat16, int start, float *y, const char *const *rows, const float *coefs, ptrdiff_t count,
                     ptrdiff_t block, ptrdiff_t left) {
    const int half = UFBERT_BLOCK / 2;
    y += block * UFBERT_BLOCK;
    for (int at = 0; at < half; at += LANES) {
        vec low = start == START_AT_Y ? v_load_part(y + at, left - at) : v_set(0.0f);
        vec high = start == START_AT_Y ? v_load_part(y + half + at, left - half - at) : v_set(0.0f);
        for (ptrdiff_t r = 0; r < count; r++) {
            const vec coef = v_set(coefs[r]);
            vec first, second;
            load_row_part(bfloat16, rows[r], block, at, left, &first, &second);
            low = v_fma(coef, first, low);
            high = v_fma(coef, second, high);
        }
        v_store_part(y + at, low, left - at);
        v_store_part(y + half + at, high, left - half - at);
    }
}

#define MIX_CASES(panel)                                                                                              \
    if (bfloat16 && start == START_AT_Y)                                                                              \
        mix_panel(panel, 1, START_AT_Y, THROUGH_CACHES, y, rows, coefs, count, block);                                \
    else if (bfloat16 && past)                                                                                        \
        mix_panel(panel, 1, START_AT_ZERO, PAST_THE_CACHES, y, rows, coefs, count, block);                            \
    else if (bfloat16)                                                                                                \
        mix_panel(panel, 1, START_AT_ZERO, THROUGH_CACHES, y, rows, coefs, count, block);                             \
    else if (start == START_AT_Y)                                                                                     \
        mix_panel(panel, 0, START_AT_Y, THROUGH_CACHES, y, rows, coefs, count, block);                                \
    else if (past)                                                                                                    \
        mix_panel(panel, 0, START_AT_ZERO, PAST_THE_CACHES, y, rows, coefs, count, block);                            \
    else                                                                                                              \
        mix_panel(panel, 0, START_AT_ZERO, THROUGH_CACHES, y, rows, coefs, count, block);

static void mix_wide(int bfloat16, int start, int past, float *y, const char *const *rows, const float *coefs,
                     ptrdiff_t count, ptrdiff_t block) {
    MIX_CASES(PANEL_BLOCKS)
}

static void mix_narrow(int bfloat16, int start, int past, float *y, const char *const *rows, const float *coefs,
                       ptrdiff_t count, ptrdiff_t block) {
    MIX_CASES(1)
}

/* Columns from `block` on, one panel of them; returns the block after it. Past the last one: n / UFBERT_BLOCK + 1. */
static ptrdiff_t mix_columns(int bfloat16, int start, int past, float *y, const char *const *rows, const float *coefs,
                             ptrdiff_t count, ptrdiff_t block, ptrdiff_t n) {
    const ptrdiff_t blocks = n / UFBERT_BLOCK;
    if (block + PANEL_BLOCKS <= blocks) {
        mix_wide(bfloat16, start, past, y, rows, coefs, count, block);
        return block + PANEL_BLOCKS;
    }
    for (; block < blocks; block++)
        mix_narrow(bfloat16, start, past, y, rows, coefs, count, block);
    if (n % UFBERT_BLOCK)
        mix_tail(bfloat16, start, y, rows, coefs, count, blocks, n % UFBERT_BLOCK);
    return blocks + 1;
}

/* y[0:n] = start + sum over r of coefs[r] * rows[r]. */
static void mix_rows(int bfloat16, int start, float *y, const char *const *rows, const float *coefs, ptrdiff_t count,
                     ptrdiff_t n) {
    for (ptrdiff_t block = 0; block * UFBERT_BLOCK < n;)
        block = mix_columns(bfloat16, start, THROUGH_CACHES, y, rows, coefs, count, block, n);
}
