#define _DEFAULT_SOURCE /* madvise */
#include "memory.h"

#include "dtypes.h"

#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#elif defined(_WIN32)
#include <malloc.h>
#endif

enum { HUGE_PAGE = 2 << 20 };

#ifdef _WIN32
static void *allocate(size_t boundary, size_t bytes) { return _aligned_malloc(bytes, boundary); }
#else
static void *allocate(size_t boundary, size_t bytes) { return aligned_alloc(boundary, bytes); }
#endif

void *ufbert_allocate_pages(size_t bytes) {
    const size_t boundary = bytes < HUGE_PAGE ? UFBERT_CACHE_LINE : HUGE_PAGE;
    void *pages = allocate(boundary, (bytes + boundary - 1) / boundary * boundary);
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

void ufbert_free_pages(void *pages) {
#ifdef _WIN32
    _aligned_free(pages);
#else
    free(pages);
#endif
}
