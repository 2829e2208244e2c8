"""The FFF kernels: typed, unchecked, without the GIL. `ufbert.cmm` checks before it calls them."""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int32_t, int64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset, strcmp

from ufbert._kernels cimport (
    UFBERT_BF16, UFBERT_CACHE_LINE, UFBERT_F32, UFBERT_GELU, UFBERT_INT8, UFBERT_MAX_DEPTH, UFBERT_RELU, UFBERT_SILU,
    UFBERT_TANH, stored_dtype, ufbert_add_above, ufbert_allocate_pages, ufbert_backward, ufbert_dtype, ufbert_fff,
    ufbert_fff_kernels, ufbert_fff_scratch, ufbert_floats_above, ufbert_free_pages, ufbert_isa, ufbert_isa_at,
    ufbert_leaf_fff, ufbert_node_rows, ufbert_pack_rows, ufbert_round_up, ufbert_row_stride, ufbert_run_team,
    ufbert_set_spinning, ufbert_share, ufbert_sort_tokens,
)

from numpy import empty, float32, ndarray, uint8


# Outputs larger than this are written past the caches, which could not keep them anyway.
cdef enum: STREAM_BYTES = 8 << 20
# Token ranges handed to a thread begin at multiples of this, so that blocks of eight stay whole.
cdef enum: SHARE_MULTIPLE = 8
# A subtree of this level is one thread's work in the backward pass: enough of them for the threads, whatever P is.
cdef enum: TOP_LEVELS = 3

ACTIVATIONS = {"gelu": UFBERT_GELU, "relu": UFBERT_RELU, "silu": UFBERT_SILU, "tanh": UFBERT_TANH}
DTYPES = {"float32": UFBERT_F32, "bfloat16": UFBERT_BF16, "int8": UFBERT_INT8}
MAX_DEPTH = UFBERT_MAX_DEPTH
run_team = ufbert_run_team


cdef list isas(bint supported):
    """Indices of the instruction sets of this build, or of those that this machine runs; the best last."""
    cdef ptrdiff_t i = 0
    found = []
    while ufbert_isa_at(i) != NULL:
        if not supported or ufbert_isa_at(i).is_supported():
            found.append(i)
        i += 1
    return found


def compiled_isas():
    """Names of the instruction sets that this build has, best last."""
    return [ufbert_isa_at(i).name.decode() for i in isas(False)]


def supported_isas():
    """Names of those that this machine runs too, best last."""
    return [ufbert_isa_at(i).name.decode() for i in isas(True)]


def active_isa():
    """Name of the instruction set in use."""
    return active.name.decode()


def use_isa(str name):
    """Switch to the instruction set `name`, one of `supported_isas`; not while a kernel runs."""
    global active
    active = ufbert_isa_at(isas(True)[supported_isas().index(name)])


cdef const ufbert_isa *isa_named(str name) except *:
    """The instruction set `name`; NULL if this machine does not run it."""
    return ufbert_isa_at(isas(True)[supported_isas().index(name)]) if name in supported_isas() else NULL


active = ufbert_isa_at(max(isas(True)))


def set_spinning(long within, long between):
    """Set how many nanoseconds threads spin before they sleep: for each other in a call, and for the next call."""
    ufbert_set_spinning(within, between)


ctypedef struct forward_work:
    const ufbert_fff *fff
    const float *x
    ptrdiff_t num_tokens, share
    float *y
    int32_t *path
    float *scores
    int stream
    char *scratch
    size_t bytes


cdef void forward_share(void *argument, ptrdiff_t i, int member) noexcept nogil:
    cdef forward_work *work = <forward_work *> argument
    cdef const ufbert_fff *fff = work.fff
    cdef ptrdiff_t first = i * work.share, visits = fff.num_trees * (fff.depth + 1)
    active.fff.forward(
        fff, work.x + first * fff.width_in, min(work.share, work.num_tokens - first), work.y + first * fff.width_out,
        work.path + first * visits if work.path != NULL else NULL,
        work.scores + first * visits if work.scores != NULL else NULL, work.stream, work.scratch + i * work.bytes,
    )


cdef bint is_streamed(const ufbert_fff *fff, ptrdiff_t num_tokens) noexcept nogil:
    return num_tokens * fff.width_out * <ptrdiff_t> sizeof(float) > STREAM_BYTES


cdef int run_forward(
    const ufbert_fff *fff, const float *x, ptrdiff_t num_tokens, float *y, int32_t *path, float *scores,
    int num_threads,
) except -1:
    """Tokens in equal shares, one for each thread, without the GIL."""
    cdef ptrdiff_t share = (num_tokens + num_threads - 1) // num_threads
    if num_threads > 1:
        share = ufbert_round_up(share, SHARE_MULTIPLE)
    cdef ptrdiff_t num_shares = (num_tokens + share - 1) // share
    cdef size_t bytes = ufbert_round_up(ufbert_fff_scratch(fff, share), UFBERT_CACHE_LINE)
    cdef int stream = is_streamed(fff, num_tokens) and (<uintptr_t> y) % UFBERT_CACHE_LINE == 0 and fff.width_out % 16 == 0
    cdef char *scratch = <char *> malloc(num_shares * bytes)
    if scratch == NULL:
        raise MemoryError(f"scratch: could not allocate {num_shares * bytes} bytes; split the batch")
    cdef forward_work work = forward_work(fff, x, num_tokens, share, y, path, scores, stream, scratch, bytes)
    with nogil:
        ufbert_share(run_team, num_threads, num_shares, forward_share, &work)
        free(scratch)


cdef ufbert_fff plain_fff(
    const float[:, :, ::1] w_in, const float[:, ::1] b_in, const float[:, :, ::1] w_out, int depth, int activation
):
    return ufbert_fff(
        w_in.shape[0], w_in.shape[1], depth, w_in.shape[2], w_out.shape[2], activation, UFBERT_F32,
        <const char *> &w_in[0, 0, 0], &b_in[0, 0], <const char *> &w_out[0, 0, 0],
        w_in.shape[2] * sizeof(float), w_out.shape[2] * sizeof(float), NULL, NULL, NULL,
    )


def fff_forward(
    const float[:, ::1] x, const float[:, :, ::1] w_in, const float[:, ::1] b_in, const float[:, :, ::1] w_out,
    int depth, int activation, int num_threads, float[:, ::1] y, int32_t[:, :, ::1] path, float[:, :, ::1] scores,
):
    """Fill y (T, H_out), and path and scores (T, P, depth + 1) unless they are None. No axis may be empty."""
    cdef ufbert_fff fff = plain_fff(w_in, b_in, w_out, depth, activation)
    cdef int32_t *first_path = &path[0, 0, 0] if path is not None else NULL
    cdef float *first_score = &scores[0, 0, 0] if scores is not None else NULL
    run_forward(&fff, &x[0, 0], x.shape[0], &y[0, 0], first_path, first_score, num_threads)


cdef class PackedLayer:
    """Weights in the kernels' layout. Holds its memory; freed with the object."""

    def __cinit__(
        self, w_in, const float[:, ::1] b_in, w_out, int depth, int activation, str dtype,
        const float[:, ::1] scales_in=None, const float[:, ::1] scales_out=None, const float[::1] columns_out=None,
        tuple stored=None, int num_threads=1,
    ):
        """w_in and w_out: (P, n, H) float32 or float16, in order or in that of (H, P, n); or int8 with scales (P, n).

        columns_out: factors (H_out,) of all output rows, for int8; None for 1. stored: of `__reduce__`, without arrays.
        """
        cdef ufbert_dtype kind = <ufbert_dtype> <int> DTYPES[dtype]
        cdef bint has_columns = columns_out is not None
        cdef const unsigned char[::1] memory = None
        cdef ptrdiff_t trees, nodes, width_in, width_out
        if stored is None:
            trees, nodes, width_in, width_out = b_in.shape[0], b_in.shape[1], w_in.shape[2], w_out.shape[2]
        else:
            trees, nodes, width_in, width_out, has_columns, memory = stored
        cdef ptrdiff_t total = trees * nodes
        cdef ptrdiff_t stride_in = ufbert_row_stride(width_in, kind), stride_out = ufbert_row_stride(width_out, kind)
        cdef bint int8 = kind == UFBERT_INT8
        self.nbytes = total * (stride_in + stride_out + sizeof(float))
        if int8:
            self.nbytes += (2 * total + (width_out if has_columns else 0)) * sizeof(float)
        self.memory = <char *> ufbert_allocate_pages(self.nbytes)
        if self.memory == NULL:
            raise MemoryError(f"packed weights: could not allocate {self.nbytes} bytes; use a shorter dtype or free some")
        cdef char *rows_out = self.memory + total * stride_in
        cdef float *biases = <float *> (rows_out + total * stride_out)
        cdef float *steps_in = biases + total if int8 else NULL
        cdef float *steps_out = biases + 2 * total if int8 else NULL
        cdef float *columns = biases + 3 * total if int8 and has_columns else NULL
        if stored is None:
            memcpy(biases, &b_in[0, 0], total * sizeof(float))
            pack_rows(w_in, scales_in, kind, self.memory, stride_in, steps_in, num_threads)
            pack_rows(w_out, scales_out, kind, rows_out, stride_out, steps_out, num_threads)
            if columns != NULL:
                memcpy(columns, &columns_out[0], width_out * sizeof(float))
        elif memory.shape[0] == <ptrdiff_t> self.nbytes:
            memcpy(self.memory, &memory[0], self.nbytes)
        else:
            raise ValueError(f"stored weights: expected {self.nbytes} bytes, got {memory.shape[0]}; store them again")
        self.fff = ufbert_fff(
            trees, nodes, depth, width_in, width_out, activation, kind, self.memory, biases, rows_out, stride_in,
            stride_out, steps_in, steps_out, columns,
        )

    def __dealloc__(self):
        ufbert_free_pages(self.memory)

    def __reduce__(self):
        """All of it, in the layout that every instruction set has."""
        cdef ufbert_fff *fff = &self.fff
        names = {code: name for name, code in DTYPES.items()}
        shape = fff.num_trees, fff.num_nodes, fff.width_in, fff.width_out
        stored = (*shape, fff.columns_out != NULL, self.memory[:self.nbytes])
        return PackedLayer, (None, None, None, fff.depth, fff.activation, names[<int> fff.dtype], None, None, None, stored)

    def forward_checked(self, x, out, num_threads, threads_for, ptrdiff_t serial_below):
        """The outputs, with all checks here: at one token those of `ufbert.cmm` cost as much as the kernel.

        From `serial_below` multiply-adds on, threads_for(multiply-adds, num_threads) threads run. None if a check fails,
        for `ufbert.cmm` to say which, or if new memory has to begin at a cache line.
        """
        cdef Py_buffer tokens, outputs
        cdef ptrdiff_t count, work
        if type(x) is not ndarray or (out is not None and type(out) is not ndarray):
            return None
        if not open_matrix(x, PyBUF_C_CONTIGUOUS, self.fff.width_in, &tokens):
            return None
        count = tokens.shape[0]
        try:
            if count == 0 or (out is None and is_streamed(&self.fff, count)):
                return None
            work = count * self.fff.num_trees * (self.fff.depth + 1) * (self.fff.width_in + self.fff.width_out)
            num_threads = 1 if work < serial_below else threads_for(work, num_threads)
            if out is None:
                out = empty((count, self.fff.width_out), float32)
            if not open_matrix(out, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE, self.fff.width_out, &outputs):
                return None
            try:
                if outputs.shape[0] != count or overlap(&tokens, &outputs):
                    return None
                run_forward(
                    &self.fff, <const float *> tokens.buf, count, <float *> outputs.buf, NULL, NULL, num_threads
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
        run_forward(&self.fff, &x[0, 0], x.shape[0], &y[0, 0], first_path, first_score, num_threads)


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


cdef int pack_rows(
    rows, const float[:, ::1] scales, ufbert_dtype dtype, char *packed, ptrdiff_t stride, float *steps, int threads
) except -1:
    """The rows of all nodes, (P, n, H), one after another; those that come with scales are int8 already."""
    matrix = rows.reshape(-1, rows.shape[2])
    cdef int failed, transposed = not matrix.flags.c_contiguous
    cdef const unsigned char[:, ::1] values = (matrix.T if transposed else matrix).view(uint8)
    cdef ufbert_node_rows given = ufbert_node_rows(stored_dtype(rows), &values[0, 0], len(matrix), rows.shape[2], transposed)
    if scales is not None:
        memcpy(steps, &scales[0, 0], given.nodes * sizeof(float))
    with nogil:
        failed = ufbert_pack_rows(dtype, &given, packed, stride, steps, run_team, threads)
    if failed:
        raise MemoryError("scratch: could not allocate it to pack trees; free some memory")


ctypedef struct backward_work:
    const ufbert_backward *work
    ptrdiff_t num_tokens, tree, top, subtrees
    int32_t *tokens
    int64_t *starts
    float *above


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
    cdef ufbert_fff fff = plain_fff(w_in, b_in, w_out, depth, activation)
    cdef ptrdiff_t num_tokens = x.shape[0], leaves = <ptrdiff_t> 1 << depth, tree
    cdef ptrdiff_t top = min(depth, TOP_LEVELS), subtrees = <ptrdiff_t> 1 << top
    cdef ptrdiff_t floats = top * ufbert_floats_above(&fff), places = fff.num_trees * num_tokens
    cdef int32_t *tokens = <int32_t *> malloc(2 * places * sizeof(int32_t))
    cdef int64_t *starts = <int64_t *> malloc(fff.num_trees * (leaves + 1) * sizeof(int64_t))
    cdef float *above = <float *> malloc(max(subtrees * floats, 1) * sizeof(float))
    if tokens == NULL or starts == NULL or above == NULL:
        free(tokens)
        free(starts)
        free(above)
        raise MemoryError(f"scratch: could not allocate it for {num_tokens} tokens; split the batch")
    cdef ufbert_backward work = ufbert_backward(
        &fff, &dy[0, 0], &x[0, 0], &path[0, 0, 0], &scores[0, 0, 0], &dx[0, 0], &dw_in[0, 0, 0], &db_in[0, 0],
        &dw_out[0, 0, 0], first_tried, first_square, first_cost,
    )
    cdef backward_work shared = backward_work(&work, num_tokens, 0, top, subtrees, tokens, starts, above)
    with nogil:
        ufbert_share(run_team, num_threads, fff.num_trees, sort_share, &shared)
        for tree in range(fff.num_trees):
            shared.tree = tree
            memset(above, 0, subtrees * floats * sizeof(float))
            ufbert_share(run_team, num_threads, subtrees, backward_share, &shared)
            ufbert_add_above(&work, tree, top, above)
    free(tokens)
    free(starts)
    free(above)


cdef void sort_share(void *argument, ptrdiff_t tree, int member) noexcept nogil:
    """One tree's tokens by their leaves."""
    cdef backward_work *all = <backward_work *> argument
    cdef ptrdiff_t leaves = (all.work.fff.num_nodes + 1) // 2, places = all.work.fff.num_trees * all.num_tokens
    cdef int32_t *mine = all.tokens + tree * all.num_tokens
    ufbert_sort_tokens(all.work, tree, all.num_tokens, all.starts + tree * (leaves + 1), mine, mine + places)


cdef void backward_share(void *argument, ptrdiff_t i, int member) noexcept nogil:
    """One subtree of the tree."""
    cdef backward_work *all = <backward_work *> argument
    cdef const ufbert_fff *fff = all.work.fff
    cdef ptrdiff_t leaves = (fff.num_nodes + 1) // 2, per_subtree = leaves // all.subtrees
    cdef const int64_t *begins = all.starts + all.tree * (leaves + 1)
    active.fff.backward(
        all.work, all.tree, all.top, all.tokens + all.tree * all.num_tokens + begins[i * per_subtree],
        begins[(i + 1) * per_subtree] - begins[i * per_subtree],
        all.above + i * all.top * ufbert_floats_above(fff),
    )


ctypedef struct leaf_work:
    const ufbert_leaf_fff *layer
    const float *x
    float *y
    ptrdiff_t num_tokens, share
    float *hidden
    ptrdiff_t scratch


def leaf_fff_forward(
    const float[:, ::1] x, const float[:, ::1] node_weights, const float[::1] node_biases,
    const float[:, :, ::1] w1s, const float[:, ::1] b1s, const float[:, :, ::1] w2s, const float[:, ::1] b2s,
    int depth, int activation, int num_threads, float[:, ::1] y,
):
    """Fill y (T, H_out); node arrays may be empty (depth 0), b2s may be None."""
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
    cdef ptrdiff_t num_tokens = x.shape[0], scratch = ufbert_round_up(layer.leaf_width, 16)  # whole cache lines
    cdef ptrdiff_t share = (num_tokens + num_threads - 1) // num_threads
    cdef float *hidden = <float *> malloc(num_threads * scratch * sizeof(float))
    if hidden == NULL:
        raise MemoryError("scratch: could not allocate it; use fewer threads")
    cdef leaf_work work = leaf_work(&layer, &x[0, 0], &y[0, 0], num_tokens, share, hidden, scratch)
    with nogil:
        ufbert_share(run_team, num_threads, (num_tokens + share - 1) // share, leaf_share, &work)
    free(hidden)


cdef void leaf_share(void *argument, ptrdiff_t i, int member) noexcept nogil:
    cdef leaf_work *work = <leaf_work *> argument
    cdef ptrdiff_t first = i * work.share
    active.fff.leaf_forward(
        work.layer, work.x + first * work.layer.width_in, min(work.share, work.num_tokens - first),
        work.y + first * work.layer.width_out, work.hidden + member * work.scratch,
    )
