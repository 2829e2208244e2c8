"""Adapters: the encoder in the words of other libraries, one module each, imported when it is used.

Each needs the package it is named after, and no other module of ufbert needs any of them.
"""
