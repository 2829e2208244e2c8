"""The compiled kernels: typed, unchecked, without the GIL. `ufbert.cmm` checks before it calls them."""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cython.parallel cimport prange, threadid
from libc.stdint cimport int32_t, int64_t, uint16_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset, strcmp

from numpy import empty, float32, ndarray


cdef extern from "kernels/kernels.h" nogil:
    ctypedef struct ufbert_fff:
        ptrdiff_t num_trees, num_nodes, depth, width_in, width_out
        int activation, bfloat16
        const char *w_in
        const float *b_in
        const char *w_out
        ptrdiff_t stride_in, stride_out

    ctypedef struct ufbert_leaf_fff:
        ptrdiff_t depth, width_in, leaf_width, width_out
        int activation
        const float *node_weights
        const float *node_biases
        const float *w1s
        const float *b1s
        const float *w2s
        const float *b2s

    ctypedef struct ufbert_backward:
        const ufbert_fff *layer
        const float *dy
        const float *x
        const int32_t *path
        const float *scores
        float *dx
        float *dw_in
        float *db_in
        float *dw_out
        const int32_t *tried
        const float *out_squares
        const float *switch_costs

    ctypedef struct ufbert_kernels:
        const char *name
        void fff_forward(
            const ufbert_fff *, const float *, ptrdiff_t, float *, int32_t *, float *, int, void *
        ) noexcept nogil
        void leaf_fff_forward(const ufbert_leaf_fff *, const float *, ptrdiff_t, float *, float *) noexcept nogil
        void backward_tokens(
            const ufbert_backward *, ptrdiff_t, ptrdiff_t, const int32_t *, ptrdiff_t, float *
        ) noexcept nogil

    ptrdiff_t ufbert_floats_above(const ufbert_fff *) nogil
    size_t ufbert_scratch_bytes(const ufbert_fff *, ptrdiff_t)
    ptrdiff_t ufbert_supported(const ufbert_kernels **, ptrdiff_t)
    int ufbert_openmp_version()
    void *ufbert_allocate_pages(size_t)
    void ufbert_free_pages(void *, size_t)
    void ufbert_pack_bfloat16(const float *, ptrdiff_t, uint16_t *)

    enum: UFBERT_GELU, UFBERT_RELU, UFBERT_SILU, UFBERT_TANH, UFBERT_BLOCK


cdef const ufbert_kernels *tables[8]
cdef ptrdiff_t num_tables = ufbert_supported(tables, 8)
cdef const ufbert_kernels *active = tables[num_tables - 1]

# Outputs larger than this are written past the caches, which could not keep them anyway.
cdef enum: STREAM_BYTES = 8 << 20
# Token ranges handed to a thread begin at multiples of this, so that blocks of eight stay whole.
cdef enum: SHARE_MULTIPLE = 8
# A subtree of this level is one thread's work in the backward pass: enough of them for the threads, whatever P is.
cdef enum: TOP_LEVELS = 3

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


cdef int run_forward(
    const ufbert_fff *layer, const float *x, ptrdiff_t num_tokens, float *y, int32_t *path, float *scores,
    int num_threads,
) except -1 nogil:
    """Tokens in equal shares, one for each thread; no thread waits for another before the end."""
    cdef const ufbert_kernels *kernels = active
    cdef ptrdiff_t visits = layer.num_trees * (layer.depth + 1)
    cdef ptrdiff_t share = (num_tokens + num_threads - 1) // num_threads
    if num_threads > 1:
        share = (share + SHARE_MULTIPLE - 1) // SHARE_MULTIPLE * SHARE_MULTIPLE
    cdef ptrdiff_t num_shares = (num_tokens + share - 1) // share, i, first
    cdef size_t bytes = (ufbert_scratch_bytes(layer, share) + 63) // 64 * 64
    cdef int stream = (
        num_tokens * layer.width_out * <ptrdiff_t> sizeof(float) > STREAM_BYTES
        and (<uintptr_t> y) % 64 == 0 and layer.width_out % 16 == 0
    )
    cdef char *scratch = <char *> malloc(num_shares * bytes)
    if scratch == NULL:
        with gil:
            raise MemoryError(f"expected {num_shares * bytes} bytes of scratch memory, got none; split the batch")
    if num_shares == 1:
        kernels.fff_forward(layer, x, num_tokens, y, path, scores, stream, scratch)
    else:
        for i in prange(num_shares, schedule="static", num_threads=num_threads):
            first = i * share
            kernels.fff_forward(
                layer, x + first * layer.width_in, min(share, num_tokens - first), y + first * layer.width_out,
                path + first * visits if path != NULL else NULL,
                scores + first * visits if scores != NULL else NULL, stream, scratch + i * bytes,
            )
    free(scratch)
    return 0


cdef ufbert_fff plain_layer(
    const float[:, :, ::1] w_in, const float[:, ::1] b_in, const float[:, :, ::1] w_out, int depth, int activation
):
    return ufbert_fff(
        w_in.shape[0], w_in.shape[1], depth, w_in.shape[2], w_out.shape[2], activation, 0,
        <const char *> &w_in[0, 0, 0], &b_in[0, 0], <const char *> &w_out[0, 0, 0],
        w_in.shape[2] * sizeof(float), w_out.shape[2] * sizeof(float),
    )


def fff_forward(
    const float[:, ::1] x, const float[:, :, ::1] w_in, const float[:, ::1] b_in, const float[:, :, ::1] w_out,
    int depth, int activation, int num_threads, float[:, ::1] y, int32_t[:, :, ::1] path, float[:, :, ::1] scores,
):
    """Fill y (T, H_out), and path and scores (T, P, depth + 1) unless they are None. No axis may be empty."""
    cdef ufbert_fff layer = plain_layer(w_in, b_in, w_out, depth, activation)
    cdef int32_t *first_path = &path[0, 0, 0] if path is not None else NULL
    cdef float *first_score = &scores[0, 0, 0] if scores is not None else NULL
    with nogil:
        run_forward(&layer, &x[0, 0], x.shape[0], &y[0, 0], first_path, first_score, num_threads)


cdef class PackedLayer:
    """Weights in the kernels' layout. Holds its memory; freed with the object."""

    cdef ufbert_fff layer
    cdef char *memory
    cdef size_t num_bytes

    def __cinit__(
        self, const float[:, :, ::1] w_in, const float[:, ::1] b_in, const float[:, :, ::1] w_out, int depth,
        int activation, bint bfloat16,
    ):
        cdef ptrdiff_t nodes = w_in.shape[0] * w_in.shape[1], node
        cdef size_t item = 2 if bfloat16 else 4
        # Rows begin at cache lines and are filled up with zeros to whole blocks.
        cdef ptrdiff_t stride_in = (w_in.shape[2] + UFBERT_BLOCK - 1) // UFBERT_BLOCK * UFBERT_BLOCK * item
        cdef ptrdiff_t stride_out = (w_out.shape[2] + UFBERT_BLOCK - 1) // UFBERT_BLOCK * UFBERT_BLOCK * item
        self.num_bytes = nodes * (stride_in + stride_out + sizeof(float))
        self.memory = <char *> ufbert_allocate_pages(self.num_bytes)
        if self.memory == NULL:
            raise MemoryError(f"expected {self.num_bytes} bytes for packed weights, got none; use bfloat16 or free some")
        cdef char *rows_out = self.memory + nodes * stride_in
        cdef char *biases = rows_out + nodes * stride_out
        cdef const float *from_in = &w_in[0, 0, 0]
        cdef const float *from_out = &w_out[0, 0, 0]
        with nogil:
            memcpy(biases, &b_in[0, 0], nodes * sizeof(float))
            for node in range(nodes):
                pack_row(self.memory + node * stride_in, from_in + node * w_in.shape[2], w_in.shape[2], bfloat16)
                pack_row(rows_out + node * stride_out, from_out + node * w_out.shape[2], w_out.shape[2], bfloat16)
        self.layer = ufbert_fff(
            w_in.shape[0], w_in.shape[1], depth, w_in.shape[2], w_out.shape[2], activation, bfloat16,
            self.memory, <const float *> biases, rows_out, stride_in, stride_out,
        )

    def __dealloc__(self):
        ufbert_free_pages(self.memory, self.num_bytes)

    @property
    def nbytes(self):
        return self.num_bytes

    def forward_alone(self, x, out, ptrdiff_t most_tokens):
        """Tokens on one thread, with all checks here: at one token those of `ufbert.cmm` cost as much as the kernel.

        Returns y, or None where anything is unusual: the long way finds out what, and says it.
        """
        cdef Py_buffer tokens, outputs
        cdef ptrdiff_t count
        if type(x) is not ndarray or (out is not None and type(out) is not ndarray):
            return None
        if not open_matrix(x, PyBUF_C_CONTIGUOUS, self.layer.width_in, &tokens):
            return None
        count = tokens.shape[0]
        try:
            if not 0 < count <= most_tokens:
                return None
            if out is None:
                out = empty((count, self.layer.width_out), float32)
            if not open_matrix(out, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE, self.layer.width_out, &outputs):
                return None
            try:
                if outputs.shape[0] != count or overlap(&tokens, &outputs):
                    return None
                with nogil:
                    run_forward(
                        &self.layer, <const float *> tokens.buf, count, <float *> outputs.buf, NULL, NULL, 1
                    )
                return out
            finally:
                PyBuffer_Release(&outputs)
        finally:
            PyBuffer_Release(&tokens)

    def forward(
        self, const float[:, ::1] x, int num_threads, float[:, ::1] y, int32_t[:, :, ::1] path, float[:, :, ::1] scores,
    ):
        """As `fff_forward`."""
        cdef int32_t *first_path = &path[0, 0, 0] if path is not None else NULL
        cdef float *first_score = &scores[0, 0, 0] if scores is not None else NULL
        with nogil:
            run_forward(&self.layer, &x[0, 0], x.shape[0], &y[0, 0], first_path, first_score, num_threads)


cdef bint open_matrix(array, int flags, ptrdiff_t width, Py_buffer *view):
    """Take the buffer of a float32 (T, width) array; False, with nothing to release, if it is none."""
    try:
        PyObject_GetBuffer(array, view, flags | PyBUF_FORMAT)
    except (BufferError, ValueError):
        return False
    if view.ndim == 2 and view.shape[1] == width and strcmp(view.format, b"f") == 0:
        return True
    PyBuffer_Release(view)
    return False


cdef bint overlap(const Py_buffer *one, const Py_buffer *other) noexcept:
    cdef const char *first = <const char *> one.buf
    cdef const char *second = <const char *> other.buf
    return first < second + other.len and second < first + one.len


cdef void pack_row(char *packed, const float *row, ptrdiff_t n, bint bfloat16) noexcept nogil:
    if bfloat16:
        ufbert_pack_bfloat16(row, n, <uint16_t *> packed)
    else:
        memcpy(packed, row, n * sizeof(float))


def fff_backward(
    const float[:, ::1] dy, const float[:, ::1] x, const float[:, :, ::1] w_in, const float[:, ::1] b_in,
    const float[:, :, ::1] w_out, int depth, const int32_t[:, :, ::1] path, const float[:, :, ::1] scores,
    int activation, int num_threads, float[:, ::1] dx, float[:, :, ::1] dw_in, float[:, ::1] db_in,
    float[:, :, ::1] dw_out, const int32_t[:, ::1] tried=None, const float[:, ::1] out_squares=None,
    const float[::1] switch_costs=None,
):
    """Fill dx, and the rows of visited nodes of dw_in, db_in and dw_out, which come as zeros. No axis may be empty.

    `out_squares` and `switch_costs` come with `tried`.
    """
    cdef const int32_t *first_tried = NULL
    cdef const float *first_square = NULL
    cdef const float *first_cost = NULL
    if tried is not None:
        first_tried, first_square, first_cost = &tried[0, 0], &out_squares[0, 0], &switch_costs[0]
    cdef const ufbert_kernels *kernels = active
    cdef ufbert_fff layer = plain_layer(w_in, b_in, w_out, depth, activation)
    cdef ptrdiff_t num_tokens = x.shape[0], leaves = <ptrdiff_t> 1 << depth, tree, i
    cdef ptrdiff_t top = min(depth, TOP_LEVELS), subtrees = <ptrdiff_t> 1 << top, per_subtree = leaves // subtrees
    cdef ptrdiff_t floats = top * ufbert_floats_above(&layer), places = layer.num_trees * num_tokens
    cdef int32_t *tokens = <int32_t *> malloc(2 * places * sizeof(int32_t))
    cdef int64_t *starts = <int64_t *> malloc(layer.num_trees * (leaves + 1) * sizeof(int64_t))
    cdef float *above = <float *> malloc(max(subtrees * floats, 1) * sizeof(float))
    cdef int32_t *mine
    cdef int64_t *begins
    if tokens == NULL or starts == NULL or above == NULL:
        free(tokens)
        free(starts)
        free(above)
        raise MemoryError(f"scratch of fff_backward for {num_tokens} tokens; split the batch")
    cdef ufbert_backward work = ufbert_backward(
        &layer, &dy[0, 0], &x[0, 0], &path[0, 0, 0], &scores[0, 0, 0], &dx[0, 0], &dw_in[0, 0, 0], &db_in[0, 0],
        &dw_out[0, 0, 0], first_tried, first_square, first_cost,
    )
    with nogil:
        for tree in prange(layer.num_trees, schedule="static", num_threads=num_threads):
            mine = tokens + tree * num_tokens
            sort_tokens(&work, tree, num_tokens, starts + tree * (leaves + 1), mine, mine + places)
        for tree in range(layer.num_trees):
            mine, begins = tokens + tree * num_tokens, starts + tree * (leaves + 1)
            memset(above, 0, subtrees * floats * sizeof(float))
            for i in prange(subtrees, schedule="dynamic", num_threads=num_threads):
                kernels.backward_tokens(
                    &work, tree, top, mine + begins[i * per_subtree],
                    begins[(i + 1) * per_subtree] - begins[i * per_subtree], above + i * floats,
                )
            add_above(&work, tree, top, above)
    free(tokens)
    free(starts)
    free(above)


cdef void sort_tokens(
    const ufbert_backward *work, ptrdiff_t tree, ptrdiff_t num_tokens, int64_t *starts, int32_t *tokens, int32_t *spare
) noexcept nogil:
    """Order the tokens by their leaves of one tree; starts (leaves + 1,) tells where each leaf's begin.

    Those of a leaf come by the level tried: where levels are alike, so are the first nodes of the paths not taken.
    """
    cdef const ufbert_fff *layer = work.layer
    cdef ptrdiff_t visits = layer.num_trees * (layer.depth + 1), leaves = (layer.num_nodes + 1) // 2, token
    cdef const int32_t *nodes = work.path + tree * (layer.depth + 1) + layer.depth  # of the last level
    for token in range(num_tokens):
        spare[token] = tokens[token] = <int32_t> token
    if work.tried != NULL:
        counting_sort(tokens, num_tokens, work.tried + tree, layer.num_trees, 0, layer.depth, starts, spare)
    counting_sort(spare, num_tokens, nodes, visits, leaves - 1, leaves, starts, tokens)


cdef void counting_sort(
    const int32_t *tokens, ptrdiff_t num_tokens, const int32_t *keys, ptrdiff_t stride, ptrdiff_t first,
    ptrdiff_t num_keys, int64_t *starts, int32_t *sorted_tokens
) noexcept nogil:
    """Stable; a token's key is keys[token * stride] - first. starts (num_keys + 1,): where each key's tokens begin."""
    cdef ptrdiff_t i, key
    cdef int64_t before = 0, count
    memset(starts, 0, (num_keys + 1) * sizeof(int64_t))
    for i in range(num_tokens):
        starts[keys[tokens[i] * stride] - first] += 1
    for key in range(num_keys):
        count, starts[key] = starts[key], before
        before += count
    for i in range(num_tokens):
        key = keys[tokens[i] * stride] - first
        sorted_tokens[starts[key]], starts[key] = tokens[i], starts[key] + 1
    for key in range(num_keys, 0, -1):  # each ran ahead to where the next one begins
        starts[key] = starts[key - 1]
    starts[0] = 0


cdef void add_above(const ufbert_backward *work, ptrdiff_t tree, ptrdiff_t top, const float *above) noexcept nogil:
    """Gradients of the nodes above level `top`: sums of their subtrees' sums, in the order of the subtrees."""
    cdef const ufbert_fff *layer = work.layer
    cdef ptrdiff_t stride = ufbert_floats_above(layer), subtrees = <ptrdiff_t> 1 << top, i, k, level, node
    cdef const float *sums
    cdef float *dw_in
    cdef float *dw_out
    for i in range(subtrees):
        for level in range(top):
            node = tree * layer.num_nodes + ((subtrees + i) >> (top - level)) - 1
            sums = above + (i * top + level) * stride
            dw_in, dw_out = work.dw_in + node * layer.width_in, work.dw_out + node * layer.width_out
            for k in range(layer.width_in):
                dw_in[k] += sums[k]
            for k in range(layer.width_out):
                dw_out[k] += sums[layer.width_in + k]
            work.db_in[node] += sums[layer.width_in + layer.width_out]


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
    cdef ptrdiff_t scratch = (layer.leaf_width + 15) // 16 * 16  # whole cache lines for each thread
    cdef float *hidden = <float *> malloc(num_threads * scratch * sizeof(float))
    if hidden == NULL:
        raise MemoryError("scratch of leaf_fff_forward")
    for token in prange(num_tokens, nogil=True, schedule="static", num_threads=num_threads):
        kernels.leaf_fff_forward(&layer, &x[token, 0], 1, &y[token, 0], hidden + threadid() * scratch)
    free(hidden)


include "_dense.pxi"
