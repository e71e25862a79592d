/*
 * SIMD_CLONES before a function: it is compiled for several instruction sets and the best one is taken when the program
 * is loaded. Nothing is fused (-ffp-contract=off) and every sum is written in a fixed order, so all variants give the
 * same bits; only the matrix products, which are OpenBLAS's, differ between kinds of CPU.
 */
#ifndef HANSA_ML_SIMD_H
#define HANSA_ML_SIMD_H

/* The choice is made before the thread sanitizer is ready for it; clang 14 makes clones that other files cannot call.
 */
#if defined(__x86_64__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#define SIMD_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define SIMD_CLONES
#endif

#endif
