/* What is the same for every instruction set: which of them run here, memory, packing. */
#define _DEFAULT_SOURCE /* madvise */
#include "dense.h"
#include "kernels.h"

#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

enum {
    TILE_TOKENS = 8192,
    TILE_VISITS = 1 << 18, /* of which scratch holds 8 bytes each */
    HUGE_PAGE = 2 << 20,
};

extern const ufbert_kernels ufbert_kernels_scalar;
extern const ufbert_dense ufbert_dense_scalar;
#if defined(__x86_64__)
extern const ufbert_kernels ufbert_kernels_avx2, ufbert_kernels_avx512;
extern const ufbert_dense ufbert_dense_avx2, ufbert_dense_avx512, ufbert_dense_avx512vnni, ufbert_dense_avx512bf16;
#endif

const ufbert_dense *ufbert_dense_for(const char *isa) {
#if defined(__x86_64__)
    if (!strcmp(isa, "avx2"))
        return &ufbert_dense_avx2;
    if (!strcmp(isa, "avx512"))
        return !__builtin_cpu_supports("avx512vnni")  ? &ufbert_dense_avx512
               : !__builtin_cpu_supports("avx512bf16") ? &ufbert_dense_avx512vnni
                                                       : &ufbert_dense_avx512bf16;
#endif
    return &ufbert_dense_scalar;
}

int ufbert_openmp_version(void) {
#ifdef _OPENMP
    return _OPENMP;
#else
    return 0;
#endif
}

ptrdiff_t ufbert_supported(const ufbert_kernels **tables, ptrdiff_t capacity) {
    ptrdiff_t count = 0;
    if (count < capacity)
        tables[count++] = &ufbert_kernels_scalar;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (count < capacity && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        tables[count++] = &ufbert_kernels_avx2;
    if (count < capacity && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
        tables[count++] = &ufbert_kernels_avx512;
#endif
    return count;
}

ptrdiff_t ufbert_tile_tokens(const ufbert_fff *layer) {
    const ptrdiff_t most = TILE_VISITS / (layer->num_trees * (layer->depth + 1));
    return most < 8 ? 8 : most > TILE_TOKENS ? TILE_TOKENS : most;
}

size_t ufbert_scratch_bytes(const ufbert_fff *layer, ptrdiff_t tokens) {
    const ptrdiff_t most = ufbert_tile_tokens(layer), tile = tokens < most ? tokens : most;
    const ptrdiff_t visits = layer->num_trees * (layer->depth + 1);
    return (size_t)tile * (4 * sizeof(int32_t) + (size_t)visits * (sizeof(int32_t) + sizeof(float)));
}

void *ufbert_allocate_pages(size_t bytes) {
    const size_t boundary = bytes < HUGE_PAGE ? 64 : HUGE_PAGE;
    void *pages = aligned_alloc(boundary, (bytes + boundary - 1) / boundary * boundary);
    if (!pages)
        return NULL;
#ifdef MADV_HUGEPAGE
    /* A random row of a few KB would otherwise miss the TLB each time. A short rest stays on small pages. */
    if (boundary == HUGE_PAGE)
        (void)madvise(pages, (bytes + boundary / 2) / boundary * boundary, MADV_HUGEPAGE);
#endif
    memset(pages, 0, bytes);
    return pages;
}

void ufbert_free_pages(void *pages, size_t bytes) {
    (void)bytes;
    free(pages);
}

void ufbert_pack_bfloat16(const float *row, ptrdiff_t n, uint16_t *packed) {
    const ptrdiff_t half = UFBERT_BLOCK / 2;
    for (ptrdiff_t first = 0; first < n; first += UFBERT_BLOCK)
        for (ptrdiff_t j = 0; j < half; j++) {
            const uint32_t low = first + j < n ? ufbert_bfloat16(row[first + j]) : 0;
            const uint32_t high = first + half + j < n ? ufbert_bfloat16(row[first + half + j]) : 0;
            const uint32_t word = high << 16 | low;
            memcpy(packed + first + 2 * j, &word, sizeof word);
        }
}
