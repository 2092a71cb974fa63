// What compilers call differently. GCC and Clang (on Windows clang-cl) compile the kernels; only GCC on Linux is tested.
#pragma once

#if defined(__BYTE_ORDER__)
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the kernels read words as little-endian bytes");
#endif

#define ALWAYS_INLINE inline __attribute__((always_inline))

// Seen from outside the library; everything else is hidden
#if defined(_WIN32)
#define EXPORTED extern "C" __declspec(dllexport)
#else
#define EXPORTED extern "C" __attribute__((visibility("default")))
#endif

// Faster code for newer x86 CPUs is there too, and chosen when the library runs. -DPLAIN_KERNELS leaves it out.
#if defined(__x86_64__) && defined(__linux__) && !defined(PLAIN_KERNELS)
#define CHOOSE_BY_CPU
#endif

// The compiler makes one of these for each kind of CPU, and the loader of the library chooses.
// Every variant gives the same bits: the build forbids to fuse multiplications with additions.
#if defined(CHOOSE_BY_CPU) && !defined(__clang__) && __GNUC__ >= 12 && !defined(__SANITIZE_ADDRESS__)
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU
#endif

// A vector of 16 bytes (`Bytes`) out of two, by their places (0 to 31)
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Bytes{__VA_ARGS__})
#endif
