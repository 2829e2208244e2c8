/* Which instruction sets there are. */
#include "isa.h"

/* Ordered, the best last. Each is a file isa/NAME.c that defines ufbert_isa_NAME; ANY is compiled on every machine. */
#define UFBERT_ISAS(ANY, X86, ARM) \
    ANY(generic)                   \
    X86(avx2)                      \
    X86(avx2vnni)                  \
    X86(avx512)                    \
    X86(avx512vnni)                \
    X86(avx512bf16)                \
    ARM(neon)                      \
    ARM(neondot)                   \
    ARM(neonbf16)

#define DECLARE(name) extern const ufbert_isa ufbert_isa_##name;
#define ENTRY(name) &ufbert_isa_##name,
#define NOTHING(name)
#if defined(__x86_64__)
#define ON_X86(what) what
#else
#define ON_X86(what) NOTHING
#endif
#if defined(__aarch64__)
#define ON_ARM(what) what
#else
#define ON_ARM(what) NOTHING
#endif

UFBERT_ISAS(DECLARE, ON_X86(DECLARE), ON_ARM(DECLARE))

static const ufbert_isa *const isas[] = {UFBERT_ISAS(ENTRY, ON_X86(ENTRY), ON_ARM(ENTRY))};

const ufbert_isa *ufbert_isa_at(ptrdiff_t index) {
    return index < (ptrdiff_t)(sizeof isas / sizeof *isas) ? isas[index] : NULL;
}
