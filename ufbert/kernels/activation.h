/* Activations and their derivatives, in vectors: a lane's value does not depend on its neighbours. NaN stays NaN. */
#ifndef UFBERT_ACTIVATION_H
#define UFBERT_ACTIVATION_H

#include "vectors.h"

/* e^v for v within the floats' exponents, to 2e-7 relative; with a term less, for v that are not above 0, to 3e-7. NaN
 * stays NaN. */
INLINE vec v_exp_inside(const int terms, vec v) {
    const vec k = v_round(v_mul(v, v_set(1.44269504f)));
    /* ln 2 in two parts, the first exact in few bits, so that k * ln 2 loses nothing. */
    vec r = v_fma(k, v_set(-0.693359375f), v);
    r = v_fma(k, v_set(2.12194440e-4f), r);
    vec p = v_set(1.3981999507e-3f);
    if (terms == 6)
        p = v_fma(v_set(1.9875691500e-4f), r, p);
    p = v_fma(p, r, v_set(8.3334519073e-3f));
    p = v_fma(p, r, v_set(4.1665795894e-2f));
    p = v_fma(p, r, v_set(1.6666665459e-1f));
    p = v_fma(p, r, v_set(5.0000001201e-1f));
    p = v_fma(v_mul(p, r), r, v_add(r, v_set(1.0f)));
    return terms == 6 ? v_scale(p, k) : v_scale_down(p, k);
}

/* e^v; 0 below the normal floats, infinity above the largest. */
INLINE vec v_exp(vec v) {
    const vec highest = v_set(88.72283f), lowest = v_set(-87.33654f);
    const vec inside = v_if_greater(v, highest, highest, v_if_greater(lowest, v, lowest, v)),
              p = v_exp_inside(6, inside);
    return v_if_greater(v, highest, v_set(INFINITY), v_if_greater(lowest, v, v_set(0.0f), p));
}

/* e^v for v that are not above 0: 1e-38 below -87. */
INLINE vec v_exp_below(vec v) {
    const vec lowest = v_set(-87.33654f);
    return v_exp_inside(5, v_max(lowest, v));
}

/* The normal distribution's cumulative function, and e^(-v*v/2), which it needs anyway.
 *
 * Below zero it is e^(-v*v/2) * q(t), t = 1 / (1 - 0.26 v). The coefficients of q are a weighted least-squares fit
 * on 0 <= -v <= 14, repeated until the largest relative error no longer fell: 6e-9, before rounding to float. */
INLINE vec v_normal_cdf(vec v, vec *gaussian) {
    const vec one = v_set(1.0f), a = v_abs(v);
    const vec t = v_div(one, v_fma(v_set(0.26f), a, one));
    vec q = v_set(3.3925410360e-2f);
    q = v_fma(q, t, v_set(-1.7051452398e-1f));
    q = v_fma(q, t, v_set(2.9097214341e-1f));
    q = v_fma(q, t, v_set(-2.0079749823e-1f));
    q = v_fma(q, t, v_set(2.0010578632e-1f));
    q = v_fma(q, t, v_set(3.1214134768e-2f));
    q = v_fma(q, t, v_set(1.0947921872e-1f));
    q = v_fma(q, t, v_set(1.0171596706e-1f));
    q = v_fma(q, t, v_set(1.0390654206e-1f));
    q = v_fma(q, t, v_set(-7.1629137892e-6f));
    *gaussian = v_exp(v_mul(v_mul(a, v_set(-0.5f)), a));
    q = v_mul(q, *gaussian);
    return v_if_greater(v, v_set(0.0f), v_sub(one, q), q);
}

INLINE vec v_sigmoid(vec v) {
    const vec one = v_set(1.0f);
    return v_div(one, v_add(one, v_exp(v_sub(v_set(0.0f), v))));
}

/* Odd: for small arguments a continued fraction's rational form, which loses no digits; else from e^(-2|v|). */
INLINE vec v_tanh(vec v) {
    const vec one = v_set(1.0f), zero = v_set(0.0f), a = v_abs(v), square = v_mul(v, v);
    const vec e = v_exp(v_mul(a, v_set(-2.0f)));
    const vec large = v_div(v_sub(one, e), v_add(one, e));
    const vec above = v_fma(v_fma(square, one, v_set(105.0f)), square, v_set(945.0f));
    const vec below = v_fma(v_fma(v_set(15.0f), square, v_set(420.0f)), square, v_set(945.0f));
    const vec small = v_div(v_mul(v, above), below);
    return v_if_greater(a, v_set(0.55f), v_if_greater(zero, v, v_sub(zero, large), large), small);
}

INLINE vec v_activate(int activation, vec v) {
    const vec zero = v_set(0.0f);
    vec gaussian;
    switch (activation) {
    case UFBERT_RELU: return v_if_greater(zero, v, zero, v);
    case UFBERT_SILU: /* a quotient, not a product with the sigmoid: the same at infinity as the reference */
        return v_div(v, v_add(v_set(1.0f), v_exp(v_sub(zero, v))));
    case UFBERT_TANH: return v_tanh(v);
    default: return v_mul(v, v_normal_cdf(v, &gaussian));
    }
}

INLINE vec v_derivative(int activation, vec v) {
    const vec one = v_set(1.0f), zero = v_set(0.0f);
    vec s, gaussian;
    switch (activation) {
    case UFBERT_RELU: return v_if_greater(v, zero, one, zero);
    case UFBERT_SILU: s = v_sigmoid(v); return v_mul(s, v_fma(v, v_sub(one, s), one));
    case UFBERT_TANH: s = v_tanh(v); return v_sub(one, v_mul(s, s));
    default: s = v_normal_cdf(v, &gaussian); return v_fma(v_mul(v, v_set(0.3989422804f)), gaussian, s);
    }
}

/* In place. */
INLINE void activate(int activation, float *values, ptrdiff_t n) {
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES)
        v_store(values + i, v_activate(activation, v_load(values + i)));
    if (i < n)
        v_store_part(values + i, v_activate(activation, v_load_part(values + i, n - i)), n - i);
}

/* values and gradients, which hold the gradients after the activation: both in place. */
INLINE void activate_backward(int activation, float *values, float *gradients, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        const vec v = v_load_part(values + i, n - i), g = v_load_part(gradients + i, n - i);
        v_store_part(gradients + i, v_mul(g, v_derivative(activation, v)), n - i);
        v_store_part(values + i, v_activate(activation, v), n - i);
    }
}

#endif
