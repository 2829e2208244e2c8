"""The dense kernels: linear layers on packed weights, attention, layer norm, whole encoder layers.

Typed, unchecked, without the GIL. `ufbert.dense` checks before it calls them. They run on the instruction set that
`ufbert._cmm` has chosen; packed weights on the one that they were packed for, whose layout they have.
"""

from cython.parallel cimport prange, threadid
from libc.stdint cimport int8_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from ufbert cimport _cmm
from ufbert._kernels cimport (
    UFBERT_BEHIND_DISTANCES, UFBERT_CACHE_LINE, UFBERT_INT8, UFBERT_NO_ACTIVATION, ufbert_allocate_pages,
    ufbert_attention, ufbert_attention_scratch, ufbert_dense_kernels, ufbert_distance_bias, ufbert_dtype,
    ufbert_encoder_layer, ufbert_layer_pass, ufbert_layout, ufbert_linear, ufbert_linear_bytes, ufbert_linear_scratch,
    ufbert_norm, ufbert_pack_linear, ufbert_pack_linear_int8, ufbert_round_up, ufbert_run_layer,
)

from ufbert._cmm import DTYPES as dtype_codes
from ufbert.errors import InputError


NO_ACTIVATION = UFBERT_NO_ACTIVATION
BEHIND_DISTANCES = UFBERT_BEHIND_DISTANCES
# Rows for each thread from which on rows are shared out, not columns.
cdef enum: ROWS_FOR_A_THREAD = 24
cdef enum: NORM_ROWS = 16


cdef class PackedPanels:
    """Weights and bias of a linear layer in the kernels' layout. Holds its memory; freed with the object."""

    cdef ufbert_linear linear
    cdef const ufbert_dense_kernels *kernels
    cdef char *memory
    cdef readonly size_t nbytes

    def __cinit__(
        self, weight, const float[::1] bias, int activation, str dtype, int num_threads, const float[::1] scale=None,
    ):
        """weight: (O, I) float32; or int8, for that dtype, with the scale (O,) of its rows. bias may be None."""
        cdef ufbert_dtype kind = <ufbert_dtype> <int> dtype_codes[dtype]
        cdef const float[:, ::1] floats
        cdef const int8_t[:, ::1] wholes
        if scale is None:
            floats = weight
        else:
            wholes = weight
        self.kernels = _cmm.active.dense
        cdef const ufbert_layout *layout = &self.kernels.layout
        cdef ptrdiff_t n = weight.shape[0], k = weight.shape[1], columns = ufbert_round_up(n, layout.panel)
        cdef size_t weights = ufbert_linear_bytes(layout, k, n, kind)
        self.nbytes = weights + columns * (3 if kind == UFBERT_INT8 else 1) * sizeof(float)
        self.memory = <char *> ufbert_allocate_pages(self.nbytes)
        if self.memory == NULL:
            raise MemoryError(f"packed weights: could not allocate {self.nbytes} bytes; use a shorter dtype or free some")
        cdef float *biases = <float *> (self.memory + weights)
        cdef float *scales = biases + columns if kind == UFBERT_INT8 else NULL
        cdef float *sums = biases + 2 * columns if kind == UFBERT_INT8 else NULL
        self.linear = ufbert_linear(k, n, activation, kind, self.memory, biases, scales, sums)
        if bias is not None:
            memcpy(biases, &bias[0], n * sizeof(float))
        with nogil:
            if scale is None:
                ufbert_pack_linear(layout, kind, &floats[0, 0], k, n, self.memory, scales, sums, num_threads)
            else:
                memcpy(scales, &scale[0], n * sizeof(float))
                ufbert_pack_linear_int8(layout, &wholes[0, 0], k, n, <int8_t *> self.memory, sums, num_threads)

    def __dealloc__(self):
        free(self.memory)

    def forward(self, const float[:, ::1] x, const float[:, ::1] residual, int num_threads, float[:, ::1] y):
        """Fill y (rows, width_out); residual may be None. No axis may be empty."""
        cdef const ufbert_dense_kernels *kernels = self.kernels
        cdef const ufbert_linear *linear = &self.linear
        cdef ptrdiff_t rows = x.shape[0], k = linear.width_in, n = linear.width_out
        cdef ptrdiff_t panels = (n + kernels.layout.panel - 1) // kernels.layout.panel
        cdef const float *first_x = &x[0, 0]
        cdef const float *more = &residual[0, 0] if residual is not None else NULL
        cdef float *first_y = &y[0, 0]
        cdef bint by_rows = rows >= ROWS_FOR_A_THREAD * num_threads
        cdef ptrdiff_t whole = rows if by_rows else panels
        cdef ptrdiff_t share = (whole + num_threads - 1) // num_threads
        if by_rows:
            share = ufbert_round_up(share, 8)
        cdef ptrdiff_t shares = (whole + share - 1) // share, i, first, last
        cdef size_t bytes = ufbert_round_up(ufbert_linear_scratch(linear), UFBERT_CACHE_LINE)
        cdef char *scratch = <char *> malloc(shares * bytes)
        if scratch == NULL:
            raise MemoryError(f"scratch: could not allocate {shares * bytes} bytes; use fewer threads")
        with nogil:
            if shares == 1:
                kernels.linear(linear, first_x, rows, more, first_y, 0, panels, scratch)
            else:
                for i in prange(shares, schedule="static", num_threads=num_threads):
                    first = i * share
                    last = min(whole, first + share)
                    if by_rows:
                        kernels.linear(
                            linear, first_x + first * k, last - first, more + first * n if more != NULL else NULL,
                            first_y + first * n, 0, panels, scratch + i * bytes,
                        )
                    else:
                        kernels.linear(linear, first_x, rows, more, first_y, first, last, scratch + i * bytes)
        free(scratch)


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
    cdef const ufbert_dense_kernels *kernels = _cmm.active.dense
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
    cdef char *scratch = <char *> malloc(num_threads * bytes)
    if scratch == NULL:
        raise MemoryError(f"scratch: could not allocate {num_threads * bytes} bytes; shorten the texts")
    with nogil:
        if num_threads == 1:
            for i in range(texts * num_heads):
                attend(kernels, &work, &cu_seqlens[0], i, scratch)
        else:
            for i in prange(texts * num_heads, schedule="dynamic", num_threads=num_threads):
                attend(kernels, &work, &cu_seqlens[0], i, scratch + threadid() * bytes)
    free(scratch)


cdef inline void attend(
    const ufbert_dense_kernels *kernels, const ufbert_attention *work, const int64_t *cu_seqlens, ptrdiff_t i, char *scratch
) noexcept nogil:
    cdef ptrdiff_t text = i // work.num_heads, head = i % work.num_heads
    cdef ptrdiff_t length = cu_seqlens[text + 1] - cu_seqlens[text]
    if length > 0:
        kernels.attention(work, cu_seqlens[text], length, head, scratch)


def layer_norm(
    const float[:, ::1] x, const float[::1] weight, const float[::1] bias, float eps, int num_threads, float[:, ::1] y
):
    """Fill y (T, H), which may be x. No axis may be empty."""
    cdef const ufbert_dense_kernels *kernels = _cmm.active.dense
    cdef ptrdiff_t rows = x.shape[0], width = x.shape[1], i
    cdef ufbert_norm norm = ufbert_norm(&weight[0], &bias[0], eps)
    if num_threads == 1:
        with nogil:
            kernels.layer_norm(&norm, &x[0, 0], rows, width, &y[0, 0])
        return
    for i in prange((rows + NORM_ROWS - 1) // NORM_ROWS, nogil=True, schedule="static", num_threads=num_threads):
        kernels.layer_norm(
            &norm, &x[i * NORM_ROWS, 0], min(NORM_ROWS, rows - i * NORM_ROWS), width, &y[i * NORM_ROWS, 0]
        )


def gate(const float[:, ::1] x, int activation, int num_threads, float[:, ::1] y):
    """Fill y (T, I) with activation(gate) * value of x (T, 2I). No axis may be empty."""
    cdef const ufbert_dense_kernels *kernels = _cmm.active.dense
    cdef ptrdiff_t rows = y.shape[0], width = y.shape[1], i
    for i in prange((rows + NORM_ROWS - 1) // NORM_ROWS, nogil=True, schedule="static", num_threads=num_threads):
        kernels.gate(activation, &x[i * NORM_ROWS, 0], min(NORM_ROWS, rows - i * NORM_ROWS), width, &y[i * NORM_ROWS, 0])


cdef int check_isa(PackedPanels part, const ufbert_dense_kernels *kernels) except -1:
    if part.kernels != kernels:
        raise InputError("packed parts: expected all for one instruction set, found several; pack them again")
    return 0


cdef class CompiledLayer:
    """An encoder layer of packed parts, run in one parallel region. Keeps the parts alive."""

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
            failed = ufbert_run_layer(self.kernels, _cmm.active.fff, &self.layer, &work, num_threads)
        if failed:
            raise MemoryError(f"scratch of a layer: could not allocate it for {x.shape[0]} tokens; split the batch")
