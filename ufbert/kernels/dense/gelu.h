/* Activations at the end of a linear layer. */
#ifndef UFBERT_GELU_H
#define UFBERT_GELU_H

#include "../activation.h"

#ifdef VECTORS_TABLES
/* GELU for dense layers, where the exact one takes a third of the time: max(v, 0) - |v| * q(|v|), where q, the normal
 * distribution's tail, is a polynomial on each of 16 pieces of 0 to 6. To 2e-7 absolute; fitted at Chebyshev's points. */
static const float gelu_pieces[6][TABLE_ENTRIES] = {
    {4.256343139e-1f, 2.868877061e-1f, 1.742507150e-1f, 9.467574334e-2f, 4.575362334e-2f, 1.958007704e-2f,
     7.394606253e-3f, 2.457901109e-3f, 7.175425353e-4f, 1.836701848e-4f, 4.116759403e-5f, 8.070996396e-6f,
     1.382830287e-6f, 2.069014041e-7f, 2.701761577e-8f, 3.077503228e-9f},
    {-1.469965850e-1f, -1.277128476e-1f, -9.640271648e-2f, -6.322244557e-2f, -3.602306334e-2f, -1.783270892e-2f,
     -7.669752180e-3f, -2.865976905e-3f, -9.304465122e-4f, -2.624445491e-4f, -6.431484030e-5f, -1.369343607e-5f,
     -2.533036459e-6f, -4.070974778e-7f, -5.684386860e-8f, -6.896002976e-9f},
    {5.167703535e-3f, 1.346940581e-2f, 1.694556216e-2f, 1.555862557e-2f, 1.139803937e-2f, 6.896368284e-3f,
     3.505378425e-3f, 1.511359889e-3f, 5.560695127e-4f, 1.752881220e-4f, 4.747318671e-5f, 1.106864422e-5f,
     2.225085639e-6f, 3.861073484e-7f, 5.788574404e-8f, 7.503261764e-9f},
    {3.324051785e-3f, 2.046171951e-3f, 2.736432912e-4f, -1.070770816e-3f, -1.559942787e-3f, -1.359993104e-3f,
     -8.882818617e-4f, -4.641733356e-4f, -1.997602937e-4f, -7.191290196e-5f, -2.186131234e-5f, -5.646923870e-6f,
     -1.244766867e-6f, -2.348904834e-7f, -3.803348560e-8f, -5.293932855e-9f},
    {-1.780014442e-4f, -4.203035770e-4f, -4.187836614e-4f, -2.326535778e-4f, -2.160065496e-5f, 9.999738330e-5f,
     1.201681369e-4f, 8.691493734e-5f, 4.684935723e-5f, 2.008678445e-5f, 7.055882821e-6f, 2.063930702e-6f,
     5.078267729e-7f, 1.058129508e-7f, 1.876007052e-8f, 2.840069165e-9f},
    {-6.711822130e-5f, -2.522202414e-5f, 2.352955744e-5f, 4.516155114e-5f, 3.535360842e-5f, 1.308875863e-5f,
     -3.227452370e-6f, -8.482121177e-6f, -6.927986009e-6f, -3.814209710e-6f, -1.605952465e-6f, -5.423018072e-7f,
     -1.504188932e-7f, -3.475392930e-8f, -6.749709833e-9f, -1.108849123e-9f},
};

INLINE vec dense_gelu(vec v) {
    const vec zero = v_set(0.0f), end = v_set(5.9999995f), size = v_abs(v);
    const vec inside = v_min(size, end), place = v_mul(inside, v_set(TABLE_ENTRIES / 6.0f));
    const vec piece = v_floor(place), t = v_sub(v_sub(place, piece), v_set(0.5f));
    const vec_index index = v_index(piece);
    vec tail = v_look_up(gelu_pieces[5], index);
#pragma GCC unroll 5
    for (int power = 4; power >= 0; power--)
        tail = v_fma(tail, t, v_look_up(gelu_pieces[power], index));
    return v_sub(v_max(zero, v), v_mul(inside, tail));
}
#else
/* GELU for dense layers: max(v, 0) - |v| * (1/2 - |v| * R(v * v)). R is a quotient of two polynomials of degree 5,
 * fitted by weighted least squares on 0 <= |v| <= 5.4 until the largest error no longer fell. To 9e-7 absolute. A third
 * of the instructions of the exact one, whose error is relative. */
static const float gelu_above[6] = {-3.989420544e-1f, -3.449209636e-2f, -4.722401351e-3f,
                                    -1.762664786e-4f, -6.490399133e-6f, -2.277692433e-8f};
static const float gelu_below[6] = {1.0f,           2.531231472e-1f, 2.902791176e-2f, 1.925492885e-3f, 7.651040956e-5f,
                                    1.208662787e-6f};

INLINE vec dense_gelu(vec v) {
    const vec zero = v_set(0.0f), end = v_set(5.4f), size = v_abs(v);
    const vec inside = v_min(size, end), square = v_mul(inside, inside);
    vec above = v_set(gelu_above[5]), below = v_set(gelu_below[5]);
#pragma GCC unroll 5
    for (int power = 4; power >= 0; power--) {
        above = v_fma(above, square, v_set(gelu_above[power]));
        below = v_fma(below, square, v_set(gelu_below[power]));
    }
    const vec tail = v_fma(inside, v_div(above, below), v_set(0.5f));
    return v_sub(v_max(zero, v), v_mul(inside, tail));
}
#endif

INLINE vec dense_activate(int activation, vec v) {
    return activation == UFBERT_NO_ACTIVATION ? v
           : activation == UFBERT_GELU        ? dense_gelu(v)
                                              : v_activate(activation, v);
}

#endif
