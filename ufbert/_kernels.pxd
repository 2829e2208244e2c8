"""What the C kernels offer to both Cython modules."""

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t


cdef extern from "kernels/dtypes.h" nogil:
    ctypedef enum ufbert_dtype: UFBERT_F32, UFBERT_BF16, UFBERT_INT8

    enum: UFBERT_NO_ACTIVATION, UFBERT_GELU, UFBERT_RELU, UFBERT_SILU, UFBERT_TANH, UFBERT_MAX_DEPTH, UFBERT_CACHE_LINE

    ptrdiff_t ufbert_round_up(ptrdiff_t, ptrdiff_t)


cdef extern from "kernels/stored.h" nogil:
    ctypedef enum ufbert_stored_dtype: UFBERT_STORED_F32, UFBERT_STORED_F16, UFBERT_STORED_BF16, UFBERT_STORED_INT8

    ctypedef struct ufbert_piece:
        const void *values
        ptrdiff_t rows

    ctypedef struct ufbert_stored:
        ufbert_stored_dtype dtype
        const ufbert_piece *pieces
        ptrdiff_t num_pieces, width


cdef inline ufbert_stored_dtype stored_dtype(array):
    """That of a NumPy array: float32, float16, int8, or uint16 for the bits of bfloat16."""
    name = array.dtype.name
    if name == "float32":
        return UFBERT_STORED_F32
    if name == "float16":
        return UFBERT_STORED_F16
    return UFBERT_STORED_INT8 if name == "int8" else UFBERT_STORED_BF16


cdef extern from "kernels/memory.h" nogil:
    void *ufbert_allocate_pages(size_t)
    void ufbert_free_pages(void *)


cdef extern from "kernels/team.h" nogil:
    ctypedef void ufbert_work(void *, int) noexcept nogil
    ctypedef void ufbert_team(int, ufbert_work *, void *) noexcept nogil
    ctypedef void ufbert_share_work(void *, ptrdiff_t, int) noexcept nogil

    ufbert_team ufbert_run_team
    void ufbert_share(ufbert_team *, int, ptrdiff_t, ufbert_share_work *, void *)
    void ufbert_set_spinning(long, long)


cdef extern from "kernels/fff/fff.h" nogil:
    ctypedef struct ufbert_fff:
        ptrdiff_t num_trees, num_nodes, depth, width_in, width_out
        int activation
        ufbert_dtype dtype
        const char *w_in
        const float *b_in
        const char *w_out
        ptrdiff_t stride_in, stride_out
        const float *scales_in
        const float *scales_out
        const float *columns_out

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
        const ufbert_fff *fff
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

    ctypedef struct ufbert_fff_kernels:
        void forward(
            const ufbert_fff *, const float *, ptrdiff_t, float *, int32_t *, float *, int, void *
        ) noexcept nogil
        void leaf_forward(const ufbert_leaf_fff *, const float *, ptrdiff_t, float *, float *) noexcept nogil
        void backward(
            const ufbert_backward *, ptrdiff_t, ptrdiff_t, const int32_t *, ptrdiff_t, float *
        ) noexcept nogil

    ptrdiff_t ufbert_row_stride(ptrdiff_t, ufbert_dtype)
    ptrdiff_t ufbert_floats_above(const ufbert_fff *)
    void ufbert_sort_tokens(const ufbert_backward *, ptrdiff_t, ptrdiff_t, int64_t *, int32_t *, int32_t *)
    void ufbert_add_above(const ufbert_backward *, ptrdiff_t, ptrdiff_t, const float *)
    size_t ufbert_fff_scratch(const ufbert_fff *, ptrdiff_t)
    ctypedef struct ufbert_node_rows:
        ufbert_stored_dtype dtype
        const void *values
        ptrdiff_t nodes, width
        int transposed

    int ufbert_pack_rows(ufbert_dtype, const ufbert_node_rows *, char *, ptrdiff_t, float *, ufbert_team *, int)


cdef extern from "kernels/dense/dense.h" nogil:
    ctypedef struct ufbert_linear:
        ptrdiff_t width_in, width_out
        int activation
        ufbert_dtype dtype
        const void *weights
        const float *bias
        const float *scales
        const float *sums

    ctypedef struct ufbert_distance_bias:
        const float *values
        ptrdiff_t reach, stride

    ctypedef struct ufbert_attention:
        ptrdiff_t num_heads, head_size
        float scale
        float *qkv
        const uint8_t *attended
        float *context
        ufbert_distance_bias bias
        const float *rotations
        ptrdiff_t window

    ctypedef struct ufbert_norm:
        const float *weight
        const float *bias
        float eps

    ctypedef struct ufbert_encoder_layer:
        ptrdiff_t width, num_heads
        float scale
        int pre
        const ufbert_linear *query_key_value
        const ufbert_linear *output
        const ufbert_linear *dense_in
        const ufbert_linear *dense_out
        ufbert_norm norm1, norm2
        const ufbert_fff *trees
        const float *tree_bias
        ufbert_distance_bias distance_bias
        const float *rotations
        ptrdiff_t window
        int gated, gate_activation

    ctypedef struct ufbert_layer_pass:
        const float *x
        float *y
        const uint8_t *attended
        const int64_t *cu_seqlens
        const int64_t *groups
        ptrdiff_t num_texts, num_groups, longest, largest
        int by_columns

    ctypedef struct ufbert_layout:
        int panel

    ctypedef struct ufbert_dense_kernels:
        ufbert_layout layout
        void linear(
            const ufbert_linear *, const float *, ptrdiff_t, const float *, float *, ptrdiff_t, ptrdiff_t, void *
        ) noexcept nogil
        void attention(const ufbert_attention *, ptrdiff_t, ptrdiff_t, ptrdiff_t, void *) noexcept nogil
        void layer_norm(const ufbert_norm *, const float *, ptrdiff_t, ptrdiff_t, float *) noexcept nogil
        void gate(int, const float *, ptrdiff_t, ptrdiff_t, float *) noexcept nogil

    enum: UFBERT_BEHIND_DISTANCES

    size_t ufbert_linear_bytes(const ufbert_layout *, ptrdiff_t, ptrdiff_t, ufbert_dtype)
    size_t ufbert_linear_scratch(const ufbert_linear *)
    size_t ufbert_attention_scratch(ptrdiff_t, ptrdiff_t)
    int ufbert_pack_linear(
        const ufbert_dense_kernels *, ufbert_dtype, const ufbert_stored *, ptrdiff_t, void *, float *, float *,
        ufbert_team *, int
    )
    int ufbert_run_layer(
        const ufbert_dense_kernels *, const ufbert_fff_kernels *, const ufbert_encoder_layer *, ufbert_layer_pass *,
        ufbert_team *, int
    )


cdef extern from "kernels/isa.h" nogil:
    ctypedef struct ufbert_isa:
        const char *name
        int is_supported() noexcept nogil
        const ufbert_fff_kernels *fff
        const ufbert_dense_kernels *dense

    const ufbert_isa *ufbert_isa_at(ptrdiff_t)
