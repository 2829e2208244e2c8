/* Packing and scratch of linear layers and attention: the same for every instruction set. */
#include "dense.h"

#include <stdlib.h>
#include <string.h>

/* Elements of a row of packed weights: int8 go by fours, bfloat16 by pairs. */
static ptrdiff_t padded_width(ptrdiff_t width_in, ufbert_dtype dtype) {
    return ufbert_round_up(width_in, dtype == UFBERT_INT8 ? 4 : dtype == UFBERT_BF16 ? 2 : 1);
}

size_t ufbert_linear_bytes(const ufbert_layout *layout, ptrdiff_t width_in, ptrdiff_t width_out, ufbert_dtype dtype) {
    const ptrdiff_t columns = ufbert_round_up(width_out, layout->panel);
    return (size_t)(columns * padded_width(width_in, dtype)) * ufbert_item_size(dtype);
}

size_t ufbert_linear_scratch(const ufbert_linear *linear) {
    /* At most: int8 in 16 bits, bfloat16 as floats. */
    const size_t item = linear->dtype == UFBERT_INT8   ? sizeof(int16_t)
                        : linear->dtype == UFBERT_BF16 ? sizeof(float)
                                                       : 0;
    const size_t row = (size_t)padded_width(linear->width_in, linear->dtype) * item;
    return UFBERT_ROWS_IN_CHUNK * (2 * sizeof(float) + sizeof(int32_t) + row);
}

size_t ufbert_attention_scratch(ptrdiff_t length, ptrdiff_t head_size) {
    const ptrdiff_t keys = ufbert_round_up(length, 2 * UFBERT_MOST_LANES), rows = UFBERT_MOST_TILE_ROWS;
    const ptrdiff_t columns = ufbert_round_up(head_size, 2 * UFBERT_MOST_LANES);
    return (size_t)((keys + 16) * head_size + length * columns + 2 * keys + rows * keys + rows * columns) *
           sizeof(float);
}

int ufbert_pack_linear(const ufbert_dense_kernels *kernels, ufbert_dtype dtype, const ufbert_stored *weight,
                       ptrdiff_t width_out, void *panels, float *scales, float *sums, ufbert_team *team, int threads) {
    const ufbert_layout *layout = &kernels->layout;
    ufbert_packing work = {dtype, weight, width_out, panels, scales, sums, NULL, 0};
    const int in_place = weight->num_pieces == 1 && ufbert_is_read_as_it_is(weight->dtype);
    if (!in_place) {
        const size_t rows = (size_t)(layout->panel * weight->width) * sizeof(float);
        work.for_panel = (size_t)ufbert_round_up((ptrdiff_t)rows, UFBERT_CACHE_LINE);
        work.scratch = malloc((size_t)threads * work.for_panel);
        if (!work.scratch)
            return -1;
    }
    ufbert_share(team, threads, (width_out + layout->panel - 1) / layout->panel, kernels->pack_panel, &work);
    free(work.scratch);
    return 0;
}
