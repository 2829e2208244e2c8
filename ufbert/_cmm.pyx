"""The compiled kernels: typed, unchecked, without the GIL. `ufbert.cmm` checks before it calls them."""

from cython.parallel cimport prange
from libc.stdint cimport int32_t
from libc.stdlib cimport free, malloc


cdef extern from "_cmm_kernels.h" nogil:
    ctypedef struct ufbert_fff:
        ptrdiff_t num_trees, num_nodes, depth, width_in, width_out
        int activation
        const float *w_in
        const float *b_in
        const float *w_out

    ctypedef struct ufbert_leaf_fff:
        ptrdiff_t depth, width_in, leaf_width, width_out
        int activation
        const float *node_weights
        const float *node_biases
        const float *w1s
        const float *b1s
        const float *w2s
        const float *b2s

    ctypedef struct ufbert_kernels:
        const char *name
        void fff_forward(const ufbert_fff *, const float *, ptrdiff_t, float *, int32_t *) noexcept nogil
        void leaf_fff_forward(const ufbert_leaf_fff *, const float *, ptrdiff_t, float *, float *) noexcept nogil

    ptrdiff_t ufbert_supported(const ufbert_kernels **, ptrdiff_t)
    int ufbert_openmp_version()

    enum: UFBERT_GELU, UFBERT_RELU, UFBERT_SILU, UFBERT_TANH


cdef const ufbert_kernels *tables[8]
cdef ptrdiff_t num_tables = ufbert_supported(tables, 8)
cdef const ufbert_kernels *active = tables[num_tables - 1]

ACTIVATIONS = {"gelu": UFBERT_GELU, "relu": UFBERT_RELU, "silu": UFBERT_SILU, "tanh": UFBERT_TANH}
OPENMP_VERSION = ufbert_openmp_version()


def supported_isas():
    """Names of the instruction sets that this build has and this machine runs, best last."""
    return [tables[i].name.decode() for i in range(num_tables)]


def active_isa():
    """Name of the instruction set in use."""
    return active.name.decode()


def use_isa(str name):
    """Switch to the instruction set `name`, one of `supported_isas`; not while a kernel runs."""
    global active
    active = tables[supported_isas().index(name)]


def fff_forward(
    const float[:, ::1] x, const float[:, :, ::1] w_in, const float[:, ::1] b_in, const float[:, :, ::1] w_out,
    int depth, int activation, int num_threads, float[:, ::1] y, int32_t[:, :, ::1] path,
):
    """Fill y (T, H_out), and path (T, P, depth + 1) unless it is None. No axis may be empty."""
    cdef const ufbert_kernels *kernels = active
    cdef ufbert_fff layer = ufbert_fff(
        w_in.shape[0], w_in.shape[1], depth, w_in.shape[2], w_out.shape[2], activation,
        &w_in[0, 0, 0], &b_in[0, 0], &w_out[0, 0, 0],
    )
    cdef ptrdiff_t num_tokens = x.shape[0], token
    cdef int32_t *first_path = NULL
    if path is not None:
        first_path = &path[0, 0, 0]
    cdef ptrdiff_t path_stride = layer.num_trees * (depth + 1)
    if num_threads == 1:
        with nogil:
            kernels.fff_forward(&layer, &x[0, 0], num_tokens, &y[0, 0], first_path)
        return
    for token in prange(num_tokens, nogil=True, schedule="static", num_threads=num_threads):
        kernels.fff_forward(
            &layer, &x[token, 0], 1, &y[token, 0],
            first_path + token * path_stride if first_path != NULL else NULL,
        )


def leaf_fff_forward(
    const float[:, ::1] x, const float[:, ::1] node_weights, const float[::1] node_biases,
    const float[:, :, ::1] w1s, const float[:, ::1] b1s, const float[:, :, ::1] w2s, const float[:, ::1] b2s,
    int depth, int activation, int num_threads, float[:, ::1] y,
):
    """Fill y (T, H_out); node arrays may be empty (depth 0), b2s may be None."""
    cdef const ufbert_kernels *kernels = active
    cdef const float *first_node = NULL
    cdef const float *first_bias = NULL
    cdef const float *first_b2 = NULL
    if depth > 0:
        first_node = &node_weights[0, 0]
        first_bias = &node_biases[0]
    if b2s is not None:
        first_b2 = &b2s[0, 0]
    cdef ufbert_leaf_fff layer = ufbert_leaf_fff(
        depth, x.shape[1], w1s.shape[2], w2s.shape[2], activation, first_node, first_bias,
        &w1s[0, 0, 0], &b1s[0, 0], &w2s[0, 0, 0], first_b2,
    )
    cdef ptrdiff_t num_tokens = x.shape[0], token
    cdef float *hidden = <float *> malloc(num_tokens * layer.leaf_width * sizeof(float))
    if hidden == NULL:
        raise MemoryError("scratch of leaf_fff_forward")
    for token in prange(num_tokens, nogil=True, schedule="static", num_threads=num_threads):
        kernels.leaf_fff_forward(&layer, &x[token, 0], 1, &y[token, 0], hidden + token * layer.leaf_width)
    free(hidden)
