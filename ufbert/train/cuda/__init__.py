"""The end-to-end stage of a conversion on a GPU: packed texts, Triton kernels, a step captured as a CUDA graph.

All scores of a tree are one matrix multiplication, and a token's path is read off them: with thousands of neurons that
is faster than gathering rows. `functions` has the operations, `model` the encoder made of them, `packing` the batches,
`step` the step. Everything runs under Triton's interpreter on a CPU too, which is how it is tested.
"""
