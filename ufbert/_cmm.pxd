from ufbert._kernels cimport ufbert_fff, ufbert_isa

cdef const ufbert_isa *active


cdef class PackedLayer:
    cdef ufbert_fff fff
    cdef char *memory
    cdef readonly size_t nbytes
