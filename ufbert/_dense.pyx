"""The dense kernels: linear layers on packed weights, attention, layer norm, whole encoder layers.

Typed, unchecked, without the GIL. `ufbert.dense` checks before it calls them. They run on the instruction set that
`ufbert._cmm` has chosen; packed weights on the one that they were packed for, whose layout they have.
"""

from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from ufbert cimport _cmm
from ufbert._kernels cimport (
    UFBERT_BEHIND_DISTANCES, UFBERT_CACHE_LINE, UFBERT_INT8, UFBERT_NO_ACTIVATION, stored_dtype, ufbert_allocate_pages,
    ufbert_attention, ufbert_attention_scratch, ufbert_dense_kernels, ufbert_distance_bias, ufbert_dtype,
    ufbert_encoder_layer, ufbert_free_pages, ufbert_isa, ufbert_layer_pass, ufbert_layout, ufbert_linear,
    ufbert_linear_bytes, ufbert_linear_scratch, ufbert_norm, ufbert_pack_linear, ufbert_piece, ufbert_round_up,
    ufbert_run_layer, ufbert_share, ufbert_stored,
)

from numpy import uint8

from ufbert._cmm import DTYPES as dtype_codes
from ufbert.errors import InputError


NO_ACTIVATION = UFBERT_NO_ACTIVATION
BEHIND_DISTANCES = UFBERT_BEHIND_DISTANCES
# Rows for each thread from which on rows are shared out, not columns.
cdef enum: ROWS_FOR_A_THREAD = 24
cdef enum: NORM_ROWS = 16


cdef int pack_pieces(
    tuple weight, const ufbert_dense_kernels *kernels, const ufbert_linear *linear, float *scales, float *sums,
    int num_threads,
) except -1:
    """Lay out the pieces of a matrix; see `PackedPanels`."""
    cdef const unsigned char[:, ::1] values
    cdef ptrdiff_t i
    cdef int failed
    cdef ufbert_piece *pieces = <ufbert_piece *> malloc(len(weight) * sizeof(ufbert_piece))
    cdef ufbert_stored stored = ufbert_stored(stored_dtype(weight[0]), pieces, len(weight), linear.width_in)
    if pieces == NULL:
        raise MemoryError("packed weights: could not allocate a list of pieces; free some memory")
    try:
        for i in range(stored.num_pieces):
            values = weight[i].view(uint8)
            pieces[i] = ufbert_piece(&values[0, 0], values.shape[0])
        with nogil:
            failed = ufbert_pack_linear(
                kernels, linear.dtype, &stored, linear.width_out, <void *> linear.weights, scales, sums, _cmm.run_team,
                num_threads,
            )
    finally:
        free(pieces)
    if failed:
        raise MemoryError("scratch: could not allocate it to pack weights; use fewer threads or free some memory")
    return 0


cdef class PackedPanels:
    """Weights and bias of a linear layer in the kernels' layout. Holds its memory; freed with the object."""

    cdef ufbert_linear linear
    cdef const ufbert_dense_kernels *kernels
    cdef str isa
    cdef char *memory
    cdef readonly size_t nbytes

    def __cinit__(
        self, tuple weight, const float[::1] bias, int activation, str dtype, int num_threads,
        const float[::1] scale=None, tuple stored=None,
    ):
        """weight: pieces of (O, I) below each other, C-contiguous and of one dtype: float32, float16, uint16 for the bits of
        bfloat16; or int8, for that dtype, with the scale (O,) of its rows. bias may be None.

        stored: what `__reduce__` has put last, with None for all arrays.
        """
        cdef ufbert_dtype kind = <ufbert_dtype> <int> dtype_codes[dtype]
        cdef const unsigned char[::1] bytes_stored = None
        cdef const ufbert_isa *variant = _cmm.active
        cdef ptrdiff_t n, k
        if stored is not None:
            variant = _cmm.isa_named(stored[0])
            if variant == NULL:
                raise InputError(
                    f"stored weights: packed for {stored[0]}, which does not run here; store a whole model, or pack here"
                )
            n = stored[1]
            k = stored[2]
            bytes_stored = stored[3]
        else:
            n = sum([len(piece) for piece in weight])
            k = weight[0].shape[1]
        self.kernels = variant.dense
        self.isa = variant.name.decode()
        cdef const ufbert_layout *layout = &self.kernels.layout
        cdef ptrdiff_t columns = ufbert_round_up(n, layout.panel)
        cdef size_t weights = ufbert_linear_bytes(layout, k, n, kind)
        self.nbytes = weights + columns * (3 if kind == UFBERT_INT8 else 1) * sizeof(float)
        self.memory = <char *> ufbert_allocate_pages(self.nbytes)
        if self.memory == NULL:
            raise MemoryError(f"packed weights: could not allocate {self.nbytes} bytes; use a shorter dtype or free some")
        cdef float *biases = <float *> (self.memory + weights)
        cdef float *scales = biases + columns if kind == UFBERT_INT8 else NULL
        cdef float *sums = biases + 2 * columns if kind == UFBERT_INT8 else NULL
        self.linear = ufbert_linear(k, n, activation, kind, self.memory, biases, scales, sums)
        if stored is not None:
            if bytes_stored.shape[0] != <ptrdiff_t> self.nbytes:
                raise ValueError(
                    f"stored weights: expected {self.nbytes} bytes, got {bytes_stored.shape[0]}; store them again"
                )
            memcpy(self.memory, &bytes_stored[0], self.nbytes)
            return
        if bias is not None:
            memcpy(biases, &bias[0], n * sizeof(float))
        if scale is not None:
            memcpy(scales, &scale[0], n * sizeof(float))
            scales = NULL  # they are there
        pack_pieces(weight, self.kernels, &self.linear, scales, sums, num_threads)

    def __dealloc__(self):
        ufbert_free_pages(self.memory)

    def __reduce__(self):
        """All of it, in the layout of the instruction set that it was packed for, with that one's name."""
        names = {code: name for name, code in dtype_codes.items()}
        stored = self.isa, self.linear.width_out, self.linear.width_in, self.memory[:self.nbytes]
        return PackedPanels, (None, None, self.linear.activation, names[<int> self.linear.dtype], 1, None, stored)

    def __deepcopy__(self, memo):
        return self  # nothing changes it

    def forward(self, const float[:, ::1] x, const float[:, ::1] residual, int num_threads, float[:, ::1] y):
        """Fill y (rows, width_out); residual may be None. No axis may be empty."""
        cdef const ufbert_linear *linear = &self.linear
        cdef ptrdiff_t rows = x.shape[0], panel = self.kernels.layout.panel
        cdef ptrdiff_t panels = (linear.width_out + panel - 1) // panel
        cdef bint by_rows = rows >= ROWS_FOR_A_THREAD * num_threads
        cdef ptrdiff_t whole = rows if by_rows else panels
        cdef ptrdiff_t share = (whole + num_threads - 1) // num_threads
        if by_rows:
            share = ufbert_round_up(share, 8)
        cdef ptrdiff_t shares = (whole + share - 1) // share
        cdef size_t bytes = ufbert_round_up(ufbert_linear_scratch(linear), UFBERT_CACHE_LINE)
        cdef const float *more = &residual[0, 0] if residual is not None else NULL
        cdef linear_work work = linear_work(
            self.kernels, linear, &x[0, 0], more, &y[0, 0], rows, panels, by_rows, whole, share,
            <char *> malloc(shares * bytes), bytes,
        )
        if work.scratch == NULL:
            raise MemoryError(f"scratch: could not allocate {shares * bytes} bytes; use fewer threads")
        with nogil:
            ufbert_share(_cmm.run_team, num_threads, shares, linear_share, &work)
        free(work.scratch)


ctypedef struct linear_work:
    const ufbert_dense_kernels *kernels
    const ufbert_linear *linear
    const float *x
    const float *residual
    float *y
    ptrdiff_t rows, panels
    bint by_rows
    ptrdiff_t whole, share
    char *scratch
    size_t bytes


cdef void linear_share(void *argument, ptrdiff_t i, int member) noexcept nogil:
    cdef linear_work *work = <linear_work *> argument
    cdef ptrdiff_t first = i * work.share, last = min(work.whole, first + work.share)
    cdef ptrdiff_t x = first * work.linear.width_in, y = first * work.linear.width_out
    cdef const float *residual = work.residual
    cdef char *scratch = work.scratch + i * work.bytes
    if work.by_rows:
        work.kernels.linear(
            work.linear, work.x + x, last - first, residual + y if residual != NULL else NULL, work.y + y, 0,
            work.panels, scratch,
        )
    else:
        work.kernels.linear(work.linear, work.x, work.rows, residual, work.y, first, last, scratch)


cdef ufbert_distance_bias distances(const float[:, ::1] bias):
    """bias: (heads, 2 * reach + 1 + BEHIND_DISTANCES), or None."""
    cdef ufbert_distance_bias found = ufbert_distance_bias(NULL, 0, 0)
    if bias is not None:
        found = ufbert_distance_bias(&bias[0, 0], (bias.shape[1] - BEHIND_DISTANCES - 1) // 2, bias.shape[1])
    return found


def attention(
    float[:, ::1] qkv, const int64_t[::1] cu_seqlens, ptrdiff_t num_heads, float scale, const uint8_t[::1] attended,
    const float[:, ::1] bias, const float[:, ::1] rotations, ptrdiff_t window, int num_threads, float[:, ::1] context,
):
    """Fill context (T, H); attended, bias and rotations may be None. No axis may be empty.

    With rotations, queries and keys are overwritten. No text is longer than the bias's reach + 1, or the rotations.
    Keys that stand `window` tokens from their query or further are left out; 0 for none.
    """
    cdef const uint8_t *first_attended = &attended[0] if attended is not None else NULL
    cdef const float *first_rotation = &rotations[0, 0] if rotations is not None else NULL
    cdef ptrdiff_t head_size = qkv.shape[1] // 3 // num_heads, texts = cu_seqlens.shape[0] - 1, longest = 0, i, text
    cdef ufbert_attention work = ufbert_attention(
        num_heads, head_size, scale, &qkv[0, 0], first_attended, &context[0, 0], distances(bias), first_rotation,
        window,
    )
    for i in range(texts):
        longest = max(longest, cu_seqlens[i + 1] - cu_seqlens[i])
    cdef size_t bytes = ufbert_round_up(ufbert_attention_scratch(longest, head_size), UFBERT_CACHE_LINE)
    cdef attention_work all_work = attention_work(&work, &cu_seqlens[0], <char *> malloc(num_threads * bytes), bytes)
    if all_work.scratch == NULL:
        raise MemoryError(f"scratch: could not allocate {num_threads * bytes} bytes; shorten the texts")
    with nogil:
        ufbert_share(_cmm.run_team, num_threads, texts * num_heads, attention_share, &all_work)
    free(all_work.scratch)


ctypedef struct attention_work:
    const ufbert_attention *attention
    const int64_t *cu_seqlens
    char *scratch
    size_t bytes


cdef void attention_share(void *argument, ptrdiff_t i, int member) noexcept nogil:
    """One head of one text."""
    cdef attention_work *work = <attention_work *> argument
    cdef ptrdiff_t text = i // work.attention.num_heads, head = i % work.attention.num_heads
    cdef ptrdiff_t start = work.cu_seqlens[text], length = work.cu_seqlens[text + 1] - start
    if length > 0:
        _cmm.active.dense.attention(work.attention, start, length, head, work.scratch + member * work.bytes)


ctypedef struct row_work:
    const ufbert_norm *norm  # NULL for gates
    int activation
    const float *x
    ptrdiff_t rows, width
    float *y


cdef void row_share(void *argument, ptrdiff_t i, int member) noexcept nogil:
    cdef row_work *work = <row_work *> argument
    cdef ptrdiff_t first = i * NORM_ROWS, rows = min(NORM_ROWS, work.rows - first), width = work.width
    if work.norm != NULL:
        _cmm.active.dense.layer_norm(work.norm, work.x + first * width, rows, width, work.y + first * width)
    else:
        _cmm.active.dense.gate(work.activation, work.x + first * 2 * width, rows, width, work.y + first * width)


cdef void share_rows(row_work *work, int num_threads) noexcept nogil:
    ufbert_share(_cmm.run_team, num_threads, (work.rows + NORM_ROWS - 1) // NORM_ROWS, row_share, work)


def layer_norm(
    const float[:, ::1] x, const float[::1] weight, const float[::1] bias, float eps, int num_threads, float[:, ::1] y
):
    """Fill y (T, H), which may be x. No axis may be empty."""
    cdef ufbert_norm norm = ufbert_norm(&weight[0], &bias[0], eps)
    cdef row_work work = row_work(&norm, 0, &x[0, 0], x.shape[0], x.shape[1], &y[0, 0])
    with nogil:
        share_rows(&work, num_threads)


def gate(const float[:, ::1] x, int activation, int num_threads, float[:, ::1] y):
    """Fill y (T, I) with activation(gate) * value of x (T, 2I). No axis may be empty."""
    cdef row_work work = row_work(NULL, activation, &x[0, 0], y.shape[0], y.shape[1], &y[0, 0])
    with nogil:
        share_rows(&work, num_threads)


cdef int check_isa(PackedPanels part, const ufbert_dense_kernels *kernels) except -1:
    if part.kernels != kernels:
        raise InputError("packed parts: expected all for one instruction set, found several; pack them again")
    return 0


cdef class CompiledLayer:
    """An encoder layer of packed parts, run by one team of threads. Keeps the parts alive."""

    cdef ufbert_encoder_layer layer
    cdef const ufbert_dense_kernels *kernels
    cdef tuple parts

    def __cinit__(
        self, PackedPanels query_key_value, PackedPanels output, feed_forward, norm1, norm2, ptrdiff_t num_heads,
        float scale, bint pre, const float[:, ::1] distance_bias, const float[:, ::1] rotations, ptrdiff_t window,
        gate,
    ):
        """feed_forward: two PackedPanels, or a PackedLayer and a bias or None; norms: (weight, bias, eps).

        norm1 may be None in a layer whose norms come before. distance_bias, rotations and window are as in `attention`;
        gate is the activation of a gated layer, or None.
        """
        cdef const float[::1] tree_bias
        cdef _cmm.PackedLayer trees
        cdef PackedPanels dense_in, dense_out
        cdef const float[::1] weight1, bias1, weight2 = norm2[0], bias2 = norm2[1]
        self.kernels = query_key_value.kernels
        check_isa(output, self.kernels)
        self.parts = query_key_value, output, feed_forward, norm1, norm2, distance_bias, rotations
        self.layer.distance_bias = distances(distance_bias)
        if rotations is not None:
            self.layer.rotations = &rotations[0, 0]
        self.layer.window = window
        if gate is not None:
            self.layer.gated, self.layer.gate_activation = True, gate
        self.layer.width, self.layer.num_heads = output.linear.width_out, num_heads
        self.layer.scale, self.layer.pre = scale, pre
        self.layer.query_key_value, self.layer.output = &query_key_value.linear, &output.linear
        if norm1 is not None:
            weight1, bias1 = norm1[0], norm1[1]
            self.layer.norm1 = ufbert_norm(&weight1[0], &bias1[0], norm1[2])
        self.layer.norm2 = ufbert_norm(&weight2[0], &bias2[0], norm2[2])
        if isinstance(feed_forward[0], _cmm.PackedLayer):
            trees, tree_bias = feed_forward
            self.layer.trees = &trees.fff
            if tree_bias is not None:
                self.layer.tree_bias = &tree_bias[0]
        else:
            dense_in, dense_out = feed_forward
            check_isa(dense_in, self.kernels)
            check_isa(dense_out, self.kernels)
            self.layer.dense_in, self.layer.dense_out = &dense_in.linear, &dense_out.linear

    def forward(
        self, const float[:, ::1] x, const int64_t[::1] cu_seqlens, const uint8_t[::1] attended, ptrdiff_t longest,
        const int64_t[::1] groups, ptrdiff_t largest, bint by_columns, int num_threads, float[:, ::1] y,
    ):
        """Fill y (T, H) by the plan of `ufbert.batch.Batch`; attended may be None. No axis may be empty."""
        cdef ufbert_layer_pass work
        cdef int failed
        work.x, work.y, work.cu_seqlens, work.groups = &x[0, 0], &y[0, 0], &cu_seqlens[0], &groups[0]
        work.attended = &attended[0] if attended is not None else NULL
        work.num_texts, work.num_groups = cu_seqlens.shape[0] - 1, groups.shape[0] - 1
        work.longest, work.largest, work.by_columns = longest, largest, by_columns
        with nogil:
            failed = ufbert_run_layer(
                self.kernels, _cmm.active.fff, &self.layer, &work, _cmm.run_team, num_threads
            )
        if failed:
            raise MemoryError(f"scratch of a layer: could not allocate it for {x.shape[0]} tokens; split the batch")
