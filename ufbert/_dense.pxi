# The dense kernels: linear layers on packed weights, attention, layer norm. Included by _cmm.pyx.

from libc.stdint cimport int8_t, uint8_t


cdef extern from "kernels/dense.h" nogil:
    ctypedef struct ufbert_linear:
        ptrdiff_t width_in, width_out
        int activation
        const float *bias
        const float *floats
        const uint16_t *halves
        const int8_t *bytes
        const float *scales
        const float *sums

    ctypedef struct ufbert_attention:
        ptrdiff_t num_heads, head_size
        float scale
        const float *qkv
        const uint8_t *attended
        float *context

    ctypedef struct ufbert_norm:
        const float *weight
        const float *bias
        float eps

    ctypedef struct ufbert_layer:
        ptrdiff_t width, num_heads
        float scale
        int pre
        const ufbert_linear *query_key_value
        const ufbert_linear *output
        const ufbert_linear *dense_in
        const ufbert_linear *dense_out
        ufbert_norm norm1, norm2
        const float *tree_bias

    ctypedef struct ufbert_pass:
        const float *x
        float *y
        const uint8_t *attended
        const int64_t *cu_seqlens
        const int64_t *groups
        ptrdiff_t num_texts, num_groups, longest, largest
        int by_columns

    ctypedef struct ufbert_dense:
        void linear(
            const ufbert_linear *, const float *, ptrdiff_t, const float *, float *, ptrdiff_t, ptrdiff_t, void *
        ) noexcept nogil
        void attention(const ufbert_attention *, ptrdiff_t, ptrdiff_t, ptrdiff_t, void *) noexcept nogil
        void layer_norm(
            const float *, ptrdiff_t, ptrdiff_t, const float *, const float *, float, float *
        ) noexcept nogil
        void add_trees(const ufbert_layer *, const float *, ptrdiff_t, float *) noexcept nogil

    const ufbert_dense *ufbert_dense_for(const char *)
    int ufbert_run_layer(const ufbert_dense *, const ufbert_layer *, ufbert_pass *, int)
    size_t ufbert_linear_scratch(const ufbert_linear *)
    size_t ufbert_attention_scratch(ptrdiff_t, ptrdiff_t)
    void ufbert_pack_floats(const ufbert_linear *, const float *, int)
    void ufbert_pack_halves(const ufbert_linear *, const float *, int)
    void ufbert_pack_bytes(const ufbert_linear *, const float *, int)

    enum: UFBERT_PANEL, UFBERT_NO_ACTIVATION


NO_ACTIVATION = UFBERT_NO_ACTIVATION
# Rows for each thread from which on rows are shared out, not columns.
cdef enum: ROWS_FOR_A_THREAD = 24
cdef enum: NORM_ROWS = 16


cdef class PackedPanels:
    """Weights and bias of a linear layer in the kernels' layout. Holds its memory; freed with the object."""

    cdef ufbert_linear layer
    cdef char *memory
    cdef size_t num_bytes

    def __cinit__(self, const float[:, ::1] weight, const float[::1] bias, int activation, str dtype, int num_threads):
        cdef ptrdiff_t n = weight.shape[0], k = weight.shape[1]
        cdef ptrdiff_t panels = (n + UFBERT_PANEL - 1) // UFBERT_PANEL, columns = panels * UFBERT_PANEL
        cdef size_t row = columns * sizeof(float)
        cdef bint int8 = dtype == "int8", bfloat16 = dtype == "bfloat16"
        cdef size_t weights = columns * k * sizeof(float)
        if int8:
            weights = columns * ((k + 3) // 4 * 4)
        elif bfloat16:
            weights = columns * ((k + 1) // 2 * 2 * sizeof(uint16_t))
        self.num_bytes = weights + row * (3 if int8 else 1)
        self.memory = <char *> ufbert_allocate_pages(self.num_bytes)
        if self.memory == NULL:
            raise MemoryError(f"expected {self.num_bytes} bytes for packed weights, got none; use int8 or free some")
        cdef float *rows = <float *> (self.memory + weights)
        self.layer = ufbert_linear(k, n, activation, rows, NULL, NULL, NULL, rows + columns, rows + 2 * columns)
        if int8:
            self.layer.bytes = <const int8_t *> self.memory
        elif bfloat16:
            self.layer.halves = <const uint16_t *> self.memory
        else:
            self.layer.floats = <const float *> self.memory
        if bias is not None:
            memcpy(rows, &bias[0], n * sizeof(float))
        with nogil:
            if int8:
                ufbert_pack_bytes(&self.layer, &weight[0, 0], num_threads)
            elif bfloat16:
                ufbert_pack_halves(&self.layer, &weight[0, 0], num_threads)
            else:
                ufbert_pack_floats(&self.layer, &weight[0, 0], num_threads)

    def __dealloc__(self):
        ufbert_free_pages(self.memory, self.num_bytes)

    @property
    def nbytes(self):
        return self.num_bytes

    def forward(self, const float[:, ::1] x, const float[:, ::1] residual, int num_threads, float[:, ::1] y):
        """Fill y (rows, width_out); residual may be None. No axis may be empty."""
        cdef const ufbert_dense *kernels = ufbert_dense_for(active.name)
        cdef const ufbert_linear *layer = &self.layer
        cdef ptrdiff_t rows = x.shape[0], k = layer.width_in, n = layer.width_out
        cdef ptrdiff_t panels = (n + UFBERT_PANEL - 1) // UFBERT_PANEL
        cdef const float *first_x = &x[0, 0]
        cdef const float *more = &residual[0, 0] if residual is not None else NULL
        cdef float *first_y = &y[0, 0]
        cdef bint by_rows = rows >= ROWS_FOR_A_THREAD * num_threads
        cdef ptrdiff_t whole = rows if by_rows else panels
        cdef ptrdiff_t share = (whole + num_threads - 1) // num_threads
        if by_rows:
            share = (share + 7) // 8 * 8
        cdef ptrdiff_t shares = (whole + share - 1) // share, i, first, last
        cdef size_t bytes = (ufbert_linear_scratch(layer) + 63) // 64 * 64
        cdef char *scratch = <char *> malloc(shares * bytes)
        if scratch == NULL:
            raise MemoryError(f"expected {shares * bytes} bytes of scratch memory, got none")
        with nogil:
            if shares == 1:
                kernels.linear(layer, first_x, rows, more, first_y, 0, panels, scratch)
            else:
                for i in prange(shares, schedule="static", num_threads=num_threads):
                    first = i * share
                    last = min(whole, first + share)
                    if by_rows:
                        kernels.linear(
                            layer, first_x + first * k, last - first, more + first * n if more != NULL else NULL,
                            first_y + first * n, 0, panels, scratch + i * bytes,
                        )
                    else:
                        kernels.linear(layer, first_x, rows, more, first_y, first, last, scratch + i * bytes)
        free(scratch)


def attention(
    const float[:, ::1] qkv, const int64_t[::1] cu_seqlens, ptrdiff_t num_heads, float scale,
    const uint8_t[::1] attended, int num_threads, float[:, ::1] context,
):
    """Fill context (T, H); attended may be None. No axis may be empty."""
    cdef const ufbert_dense *kernels = ufbert_dense_for(active.name)
    cdef const uint8_t *first_attended = &attended[0] if attended is not None else NULL
    cdef ptrdiff_t head_size = qkv.shape[1] // 3 // num_heads, texts = cu_seqlens.shape[0] - 1, longest = 0, i, text
    cdef ufbert_attention work = ufbert_attention(
        num_heads, head_size, scale, &qkv[0, 0], first_attended, &context[0, 0]
    )
    for i in range(texts):
        longest = max(longest, cu_seqlens[i + 1] - cu_seqlens[i])
    cdef size_t bytes = (ufbert_attention_scratch(longest, head_size) + 63) // 64 * 64
    cdef char *scratch = <char *> malloc(num_threads * bytes)
    if scratch == NULL:
        raise MemoryError(f"expected {num_threads * bytes} bytes of scratch memory, got none; shorten the texts")
    with nogil:
        if num_threads == 1:
            for i in range(texts * num_heads):
                attend(kernels, &work, &cu_seqlens[0], i, scratch)
        else:
            for i in prange(texts * num_heads, schedule="dynamic", num_threads=num_threads):
                attend(kernels, &work, &cu_seqlens[0], i, scratch + threadid() * bytes)
    free(scratch)


cdef inline void attend(
    const ufbert_dense *kernels, const ufbert_attention *work, const int64_t *cu_seqlens, ptrdiff_t i, char *scratch
) noexcept nogil:
    cdef ptrdiff_t text = i // work.num_heads, head = i % work.num_heads
    cdef ptrdiff_t length = cu_seqlens[text + 1] - cu_seqlens[text]
    if length > 0:
        kernels.attention(work, cu_seqlens[text], length, head, scratch)


def layer_norm(
    const float[:, ::1] x, const float[::1] weight, const float[::1] bias, float eps, int num_threads, float[:, ::1] y
):
    """Fill y (T, H), which may be x. No axis may be empty."""
    cdef const ufbert_dense *kernels = ufbert_dense_for(active.name)
    cdef ptrdiff_t rows = x.shape[0], width = x.shape[1], i
    if num_threads == 1:
        with nogil:
            kernels.layer_norm(&x[0, 0], rows, width, &weight[0], &bias[0], eps, &y[0, 0])
        return
    for i in prange((rows + NORM_ROWS - 1) // NORM_ROWS, nogil=True, schedule="static", num_threads=num_threads):
        kernels.layer_norm(
            &x[i * NORM_ROWS, 0], min(NORM_ROWS, rows - i * NORM_ROWS), width, &weight[0], &bias[0], eps,
            &y[i * NORM_ROWS, 0],
        )


cdef class CompiledLayer:
    """An encoder layer of packed parts, run in one parallel region. Keeps the parts alive."""

    cdef ufbert_layer layer
    cdef PackedLayer trees
    cdef tuple parts

    def __cinit__(
        self, PackedPanels query_key_value, PackedPanels output, feed_forward, norm1, norm2, ptrdiff_t num_heads,
        float scale, bint pre,
    ):
        """feed_forward: two PackedPanels, or a PackedLayer and a bias or None; norms: (weight, bias, eps)."""
        cdef const float[::1] tree_bias
        cdef PackedPanels dense_in, dense_out
        cdef const float[::1] weight1 = norm1[0], bias1 = norm1[1], weight2 = norm2[0], bias2 = norm2[1]
        self.parts = query_key_value, output, feed_forward, norm1, norm2
        self.layer = ufbert_layer(
            output.layer.width_out, num_heads, scale, pre, &query_key_value.layer, &output.layer, NULL, NULL,
            ufbert_norm(&weight1[0], &bias1[0], norm1[2]), ufbert_norm(&weight2[0], &bias2[0], norm2[2]), NULL,
        )
        if isinstance(feed_forward[0], PackedLayer):
            self.trees, tree_bias = feed_forward
            if tree_bias is not None:
                self.layer.tree_bias = &tree_bias[0]
        else:
            dense_in, dense_out = feed_forward
            self.layer.dense_in, self.layer.dense_out = &dense_in.layer, &dense_out.layer

    def forward(
        self, const float[:, ::1] x, const int64_t[::1] cu_seqlens, const uint8_t[::1] attended, ptrdiff_t longest,
        const int64_t[::1] groups, ptrdiff_t largest, bint by_columns, int num_threads, float[:, ::1] y,
    ):
        """Fill y (T, H) by the plan of `ufbert.batch.Batch`; attended may be None. No axis may be empty."""
        cdef const ufbert_dense *kernels = ufbert_dense_for(active.name)
        cdef ptrdiff_t tokens = x.shape[0]
        cdef ufbert_pass work
        cdef int failed
        work.x, work.y, work.cu_seqlens, work.groups = &x[0, 0], &y[0, 0], &cu_seqlens[0], &groups[0]
        work.attended = &attended[0] if attended is not None else NULL
        work.num_texts, work.num_groups = cu_seqlens.shape[0] - 1, groups.shape[0] - 1
        work.longest, work.largest, work.by_columns = longest, largest, by_columns
        with nogil:
            failed = ufbert_run_layer(kernels, &self.layer, &work, num_threads)
        if not failed and self.trees is not None:
            failed = self.visit_trees(kernels, tokens, num_threads, &y[0, 0])
        if failed:
            raise MemoryError(f"scratch of a layer for {tokens} tokens; split the batch")

    cdef int visit_trees(self, const ufbert_dense *kernels, ptrdiff_t tokens, int num_threads, float *y) except -1:
        """The feed-forward half, in place."""
        cdef ptrdiff_t width = self.layer.width, chunks = (tokens + NORM_ROWS - 1) // NORM_ROWS, i, first
        cdef const ufbert_norm *norm = &self.layer.norm2
        cdef float *normed = <float *> malloc((2 if self.layer.pre else 1) * tokens * width * sizeof(float))
        cdef float *sums = normed
        if normed == NULL:
            return 1
        try:
            with nogil:
                if self.layer.pre:
                    sums = normed + tokens * width
                    for i in prange(chunks, schedule="static", num_threads=num_threads):
                        first = i * NORM_ROWS
                        kernels.layer_norm(
                            y + first * width, min(NORM_ROWS, tokens - first), width, norm.weight, norm.bias, norm.eps,
                            normed + first * width,
                        )
                run_forward(&self.trees.layer, normed if self.layer.pre else y, tokens, sums, NULL, NULL, num_threads)
                for i in prange(chunks, schedule="static", num_threads=num_threads):
                    first = i * NORM_ROWS
                    kernels.add_trees(
                        &self.layer, sums + first * width, min(NORM_ROWS, tokens - first), y + first * width
                    )
        finally:
            free(normed)
        return 0
